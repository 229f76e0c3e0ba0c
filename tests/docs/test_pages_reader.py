"""The reader of pages: names, marks, lines, and what it refuses."""

import pytest
from pages import PageError, blocks_of

PAGE = """\
# A page

`rows.csv`:

```csv
a,b
```

<!-- run: short -->
```bash
fedlit run my.yaml \\
  seed=1   # a comment
```

```text
done
```

```yaml
# my.yaml
seed: 1
```

In a file `part.py` is this:

```python
x = 1
```

Now ask it.

```python
print(x)
```

<!-- run: no, pip install -->
~~~bash
pip install x
~~~

1. in a list:

   ```json
   # rows.json
   [1]
   ```

```{toctree}
index
```
"""


def test_a_page_is_its_blocks() -> None:
    blocks = list(blocks_of(PAGE, "p.md"))
    assert [(block.kind, block.name, block.line, block.mark) for block in blocks] == [
        ("file", "rows.csv", 5, ""),
        ("commands", None, 10, "short"),
        ("output", None, 15, ""),
        ("file", "my.yaml", 19, ""),
        ("file", "part.py", 26, ""),
        ("python", None, 32, ""),
        ("commands", None, 37, "no"),
        ("file", "rows.json", 43, ""),
        ("directive", None, 48, ""),
    ]
    assert blocks[6].reason == "pip install"
    assert (blocks[3].text, blocks[7].text) == ("# my.yaml\nseed: 1\n", "[1]\n")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("```fortran\nx\n```\n", "p.md:1: a block in 'fortran'"),
        ("\n<!-- run: sometimes -->\n```bash\nls\n```\n", "p.md:3: the mark 'sometimes'"),
        ("<!-- run: no -->\n```bash\nls\n```\n", "needs a reason"),
        ("<!-- run: short -->\nwords\n```bash\nls\n```\n", "p.md:1: the mark stands on the line before"),
        ("```bash\nls\n", "p.md:1: the block is not closed"),
    ],
)
def test_what_it_does_not_know_is_told_with_page_and_line(text: str, said: str) -> None:
    with pytest.raises(PageError, match=r"p\.md") as caught:
        list(blocks_of(text, "p.md"))
    assert said in str(caught.value)
