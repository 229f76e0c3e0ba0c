"""The options of the rows: where they come from, and what of a row goes in and what is to be predicted."""

from dataclasses import dataclass, field
from typing import Any

from fedlit.options import option
from fedlit.ranges import POSITIVE_COUNT


@dataclass
class DataConfig:
    """Where the rows come from, and what of a row goes in and what is to be predicted."""

    name: str = "pydoc"
    """name of the data set, as it stands in the run's name and its record"""
    task: str = "causal_lm"
    """`causal_lm` (a response follows its prompt), `sequence_classification` or `image_classification`"""
    source: str = option("pydoc", values=("pydoc", "digits", "table", "jsonl", "images", "hub", "memory"))
    """reader: `pydoc` (the interpreter's own docstrings), `digits` (scikit-learn's images), `table` (local files of
    rows, read by their endings; `jsonl` is the same), `images` (a local folder of images, or an .npz file), `hub`
    (Hugging Face datasets), `memory` (rows given to `fedlit.run`) or one of a plugin"""
    source_options: dict[str, Any] = field(default_factory=dict)
    """options of a plugin's reader, such as `{folder: notes}`"""
    path: str | list[str] | None = None
    """local file of rows, .npz file or folder of images, or several: a list, a pattern with `*` or a folder; when given
    it is read instead of the hub"""
    test_path: str | list[str] | None = None
    """the same for a test set of its own, which is then the global one; null if there is none"""
    validation_path: str | list[str] | None = None
    """the same for a validation set of its own, on which rounds and rates are chosen; null if there is none"""
    hub_id: str | None = None
    """name of the data set on the Hugging Face hub"""
    hub_config: str | list[str] | None = None
    """configuration (subset) of the hub data set, or several; null if it has one only"""
    hub_split: str = "train"
    """split of the hub data set"""
    hub_test_split: str | None = None
    """split of the hub data set that is its test set; null if there is none"""
    hub_validation_split: str | None = None
    """split of the hub data set that is its validation set; null if there is none"""
    hub_test_id: str | None = None
    """hub data set that hub_test_split belongs to; null for the same"""
    hub_test_config: str | None = None
    """configuration of hub_test_id; null if it has one only"""
    test_columns: list[str] = field(default_factory=list)
    """columns that the test set calls otherwise, each as `<name here>=<name there>`"""
    template: str = "{prompt}\n"
    """causal_lm: prompt as a Python format string over the row's columns; the response follows it directly. In
    `${prompt}$` the column stands between dollar signs; braces that are no column are doubled"""
    prompt: str | None = None
    """causal_lm: column that is the prompt as it stands, with a line break after it, in place of a template"""
    test_template: str | None = None
    """causal_lm: prompt at evaluation where it differs from the one of training; null for the same"""
    required: list[str] | None = None
    """causal_lm: columns that must not be blank in a row, the response aside; null: at least one of the prompt's"""
    messages: str | list[str] | None = None
    """causal_lm: column of a conversation, in place of prompt and response, or two: of a prompt and of its completion,
    both lists of messages. The loss is on the assistant's turns, of two columns on those of the completion"""
    chat_template: str | None = None
    """causal_lm: file with a chat template in Jinja; null for the tokenizer's own"""
    response: str = "response"
    """causal_lm: column that holds the response"""
    text: str | list[str] | None = None
    """sequence_classification: the column that is read, or two of a pair; null for `text`. causal_lm: column of plain
    text to go on pretraining with, in place of prompt and response; null for these"""
    image: str = "image"
    """image_classification: column that holds the image"""
    target: str = "label"
    """classification: column that holds the class, as its number from 0 or its name, or the number to predict"""
    classes: list[str] | None = None
    """classification: names of the classes in the order of their numbers; null for those of the training rows"""
    regression: bool = False
    """sequence_classification: the target is a number, not a class"""
    label: str | None = "label"
    """column whose values the partition skews; null for data without labels"""
    drop_empty: bool = False
    """leave out rows with an empty response instead of stopping with an error"""
    sample: int | None = option(None, range=POSITIVE_COUNT)
    """number of rows drawn from the data set in proportion to the labels; null for all rows"""
    multiple_references: bool = False
    """causal_lm: test rows with one prompt are one example whose responses are all right"""
    scores: list[str] | None = None
    """scores in the record besides the loss, the main one first; null for the task's own"""
    score_options: dict[str, Any] = field(default_factory=dict)
    """options of a plugin's scores"""
    answer: str | None = option(None, values=("text", "number", "boxed", "option"))
    """causal_lm: what exact_match compares: `text`, `number` (the last one), `boxed` (LaTeX), `option`; null: none"""
    options: str | None = None
    """causal_lm: regular expression whose group 1 in the prompt lists the valid answers with slashes between them"""
    score_by: str | None = None
    """causal_lm: column by whose values exact_match and accuracy are told apart too; null for none"""
