"""Writes runner/text/unicode_classes.inc: which code points count as letter, number and digit.

The tokenizer must cut text exactly where Hugging Face tokenizers cuts it, on every machine, so the
classes are those of one stated version of that package, found by asking it about each code point:

  letter   \\p{L} of the ByteLevel pattern: joins on to "a"
  number   \\p{N} of the ByteLevel pattern: joins on to "1"
  space    \\s of the ByteLevel pattern: does not join on to a following "!", and is not U+0020
  digit    what the Digits pre-tokenizer isolates

    python tools/make_unicode_classes.py > runner/text/unicode_classes.inc
"""

import tokenizers
from tokenizers import pre_tokenizers


def ranges(code_points):
    """Inclusive ranges of a sorted list."""
    result = []
    for code_point in code_points:
        if result and code_point == result[-1][1] + 1:
            result[-1][1] = code_point
        else:
            result.append([code_point, code_point])
    return result


def main():
    pattern = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    digits = pre_tokenizers.Digits(individual_digits=True)
    classes = {"Letter": [], "Number": [], "Space": [], "Digit": []}
    for code_point in range(0x110000):
        if 0xD800 <= code_point < 0xE000:
            continue
        character = chr(code_point)
        if len(pattern.pre_tokenize_str("a" + character)) == 1:
            classes["Letter"].append(code_point)
        elif len(pattern.pre_tokenize_str("1" + character)) == 1:
            classes["Number"].append(code_point)
        elif code_point == 0x20 or len(pattern.pre_tokenize_str(character + "!")) == 2:
            classes["Space"].append(code_point)
        if len(digits.pre_tokenize_str("a" + character)) == 2:
            classes["Digit"].append(code_point)
    print(f"// Made by tools/make_unicode_classes.py from tokenizers {tokenizers.__version__}.")
    print("// Inclusive ranges of code points, ascending.")
    for name, code_points in classes.items():
        print(f"constexpr CodePointRange k{name}Ranges[] = {{")
        line = "   "
        for first, last in ranges(code_points):
            item = f" {{{first:#x}, {last:#x}}},"
            if len(line) + len(item) > 100:
                print(line)
                line = "   "
            line += item
        print(line)
        print("};")


if __name__ == "__main__":
    main()
