"""Rows of a prompt and its response as token sequences."""

from collections.abc import Mapping, Sequence
from typing import Any

from fedlit.data.collation import Example
from fedlit.data.prompts import prompt_template, render
from fedlit.tasks.causal_lm.encoder import Encoder, Fit
from fedlit.tasks.questions import Question, evaluation_questions


class PromptEncoder(Encoder):
    """Prompt and response in one sequence, which ends with the end-of-text token."""

    def encode(self, rows: Sequence[Mapping[str, Any]]) -> list[Example]:
        """Return rows as examples; an empty prompt becomes the begin-of-text token, or the end-of-text token."""
        texts = [render(dict(row), self.data) for row in rows]
        questions = [Question(prompt=prompt, references=(response,)) for prompt, response in texts]
        return self._examples(questions, self.longest)

    def evaluation_examples(self, rows: Sequence[Mapping[str, Any]]) -> list[Example]:
        """Return test rows as examples, by `data.test_template`; see `evaluation_questions` for what becomes one.

        Raises:
            UserError: as evaluation_questions.
        """
        questions = evaluation_questions(rows, self.data, by_options=self.by_options)
        return self._examples(questions, self.longest_prompt)

    def asked(self, row: Mapping[str, Any]) -> Example:
        """Return the prompt of a row's columns."""
        prompt, _ = render({**row, self.data.response: ""}, self.data, test=True)
        return self._examples([Question(prompt=prompt, references=("",))], self.longest_prompt)[0]

    def protocol_parts(self) -> dict[str, Any]:
        """Return the template of evaluation."""
        return {"template": prompt_template(self.data, test=True)}

    def _examples(self, questions: Sequence[Question], longest_prompt: int) -> list[Example]:
        if not questions:
            return []
        prompts = self.tokenizer([question.prompt for question in questions], verbose=False)["input_ids"]
        responses = [question.candidates or question.references[:1] for question in questions]
        # Candidates are a few texts, many times over.
        texts = list(dict.fromkeys(response for alternatives in responses for response in alternatives))
        ids = dict(zip(texts, self.tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"], strict=True))
        return [
            self._example(question, prompt_ids, [ids[text] for text in alternatives], longest_prompt)
            for question, prompt_ids, alternatives in zip(questions, prompts, responses, strict=True)
        ]

    def _example(
        self, question: Question, prompt_ids: list[int], responses: list[list[int]], longest_prompt: int
    ) -> Example:
        """Return the example of a question, whose `responses` are its candidates or its first reference."""
        begin, end = self.tokenizer.bos_token_id, self.tokenizer.eos_token_id
        if len(prompt_ids) > 1 and prompt_ids[-1] == end:  # some tokenizers close every text
            prompt_ids = prompt_ids[:-1]
        if not prompt_ids:  # there must be something to go on from
            prompt_ids = [end if begin is None else begin]
        closed = [[*response, end] for response in responses]
        fit = Fit.of(prompt_ids, closed, longest=self.longest, longest_prompt=longest_prompt, begin=begin)
        return question_example(question, fit, prompt_ids, closed)


def question_example(
    question: Question, fit: Fit, prompt_ids: Sequence[int], responses: Sequence[Sequence[int]]
) -> Example:
    """Return the example of a question; `responses` are the tokens of its candidates or of its first reference."""
    prompt, kept = fit.prompt(prompt_ids), [fit.response(response) for response in responses]
    return Example(
        token_ids=(*prompt, *kept[question.right_option]),
        num_prompt_tokens=len(prompt),
        prompt=question.prompt,
        response=question.references[0],
        truncated=fit.truncated,
        other_references=question.references[1:],
        group=question.group,
        options=question.options,
        candidates=tuple(kept) if question.candidates else (),
        right_option=question.right_option,
    )
