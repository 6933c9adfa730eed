"""Keys and values of training facts, drawn from the word lists of tasks.json and from made-up words.

`Words(tasks, lexicon, sentences)` is what training uses: half of the words are the lists', half the lexicon's
(lexicon.py), and some values are pieces of the corpus' sentences (prose.py). An evaluation passes other lists (see
held_out_words) and so draws keys and values that training cannot produce.
"""

import json
import string
from pathlib import Path

from .prose import clause

MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")

HONORIFICS = ("Mr.", "Mrs.", "Ms.", "Dr.", "Prof.", "St.", "Sir", "Aunt", "Uncle", "Captain")
JOINTS = (
    "at", "at", "in", "behind", "of", "for", "every", "per", "and", "with", "by", "near", "from", "to", "on", ",", "&",
)  # fmt: skip

OPEN_LISTS = ("adjectives", "nouns", "attributes", "places", "names")
LEXICON_SHARE = 0.5
HELD_OUT = Path(__file__).resolve().parent / "held_out_words.json"


def held_out_words(tasks):
    """The same rules with word lists that share nothing with training's."""
    lists = json.loads(HELD_OUT.read_text(encoding="utf-8"))
    lists["filler"] = tasks["train_words"]["filler"]
    return Words(dict(tasks, train_words=lists))


class Words:
    def __init__(self, tasks, lexicon=(), sentences=()):
        self.lists = tasks["train_words"]
        self.lexicon = lexicon
        self.sentences = sentences
        self.syllables = tasks["syllables"]
        self.key_kinds = [
            (24, self.key_described),
            (16, self.key_attribute),
            (10, self.key_of),
            (18, self.key_made_up),
            (8, self.key_owned),
            (9, self.key_identifier),
            (6, self.key_single),
            (6, self.key_numbered),
            (3, self.key_letters),
        ]
        self.value_kinds = {
            "number": (24, self.number),
            "code": (14, self.code),
            "word": (32, self.word),
            "phrase": (10, self.phrase),
            "described": (32, self.key_described),
            "name": (6, self.full_name),
            "date": (4, self.date),
            "time": (2, self.time),
            "decimal": (3, self.decimal),
            "version": (2, self.version),
            "hex": (3, self.hexadecimal),
            "amount": (5, self.amount),
            "path": (2, self.path),
            "place": (5, self.place),
            "address": (2, self.address),
            "moment": (3, self.moment),
            "grouped": (7, self.grouped),
            "plate": (6, self.plate),
            "thousands": (5, self.thousands),
            "listed": (5, self.listed),
            "email": (2, self.email),
            "measure": (4, self.measure),
            "title": (5, self.title),
            "details": (9, self.details),
        }
        if sentences:
            self.value_kinds["clause"] = (10, self.clause)

    def weighted(self, rng, pairs):
        total = sum(weight for weight, _ in pairs)
        point = rng.random() * total
        for weight, item in pairs:
            point -= weight
            if point < 0:
                return item
        return pairs[-1][1]

    def pick(self, rng, name):
        if self.lexicon and name in OPEN_LISTS and rng.random() < LEXICON_SHARE:
            word = rng.choice(self.lexicon)
            return word.capitalize() if name in ("places", "names") else word
        return rng.choice(self.lists[name])

    def made_up(self, rng, most=4):
        count = rng.choice((1, 2, 2, 2, 3, 3, 4))
        s = self.syllables
        text = "".join(
            rng.choice(s["onsets"]) + rng.choice(s["vowels"]) + rng.choice(s["codas"])
            for _ in range(min(count, most))
        )
        return text.capitalize() if rng.random() < 0.25 else text

    def any_word(self, rng):
        """A lower-case word for a phrasing: of the corpus or made up."""
        if self.lexicon and rng.random() < 0.7:
            return rng.choice(self.lexicon)
        return self.made_up(rng, 3).lower()

    def letters(self, rng):
        return "".join(rng.choice(string.ascii_lowercase) for _ in range(rng.randint(2, 7)))

    def key(self, rng):
        text = self.weighted(rng, self.key_kinds)(rng)
        case = rng.random()
        return text.upper() if case < 0.03 else text.title() if case < 0.07 else text

    def key_described(self, rng):
        return f"{self.pick(rng, 'adjectives')} {self.pick(rng, 'nouns')}"

    def key_attribute(self, rng):
        head = self.key_described(rng) if rng.random() < 0.4 else self.pick(rng, "nouns")
        return f"{head} {self.pick(rng, 'attributes')}"

    def key_of(self, rng):
        thing = rng.choice((self.key_described, self.key_single, self.made_up))(rng)
        return f"{self.pick(rng, 'attributes')} {rng.choice(('of', 'of the', 'for', 'for the', 'in'))} {thing}"

    def key_made_up(self, rng):
        kind = rng.random()
        if kind < 0.4:
            return self.made_up(rng)
        if kind < 0.7:
            return f"{self.made_up(rng)} {rng.choice((self.pick(rng, 'nouns'), self.pick(rng, 'attributes')))}"
        if kind < 0.85:
            return f"{self.pick(rng, 'adjectives')} {self.made_up(rng)}"
        return f"{self.made_up(rng)} {self.made_up(rng)}"

    def key_owned(self, rng):
        owner = self.pick(rng, "names") if rng.random() < 0.7 else self.made_up(rng).capitalize()
        head = self.pick(rng, "adjectives") + " " if rng.random() < 0.3 else ""
        return (
            f"{owner}'s {head}{rng.choice((self.pick(rng, 'nouns'), self.pick(rng, 'attributes')))}"
        )

    def key_identifier(self, rng):
        words = [
            rng.choice(
                (
                    self.pick(rng, "nouns"),
                    self.pick(rng, "attributes"),
                    self.pick(rng, "adjectives"),
                    self.made_up(rng, 2).lower(),
                )
            )
            for _ in range(rng.choice((2, 2, 3)))
        ]
        style = rng.randrange(6)
        if style < 2:
            return "_".join(words)
        if style == 2:
            return "_".join(words).upper()
        if style == 3:
            return words[0] + "".join(word.capitalize() for word in words[1:])
        return (".", "-")[style - 4].join(words)

    def key_single(self, rng):
        return self.pick(rng, rng.choice(("nouns", "nouns", "attributes", "places", "names")))

    def key_numbered(self, rng):
        number = rng.choice(
            (str(rng.randint(1, 9999)), rng.choice("ABCDEFGHKLMN") + str(rng.randint(1, 99)))
        )
        return f"{self.pick(rng, 'nouns')} {number}"

    def key_letters(self, rng):
        return " ".join(self.letters(rng) for _ in range(rng.choice((1, 2, 2))))

    def value(self, rng, kind=None):
        if kind is None:
            return self.weighted(rng, list(self.value_kinds.values()))(rng)
        return self.value_kinds[kind][1](rng)

    def kind_of_several(self, rng):
        """A kind whose values may stand in one answer: "thousands" and "listed" hold the comma that parts them."""
        pairs = [
            (weight, name)
            for name, (weight, _) in self.value_kinds.items()
            if name not in ("thousands", "listed")
        ]
        return self.weighted(rng, pairs)

    def number(self, rng):
        digits = rng.choice((1, 2, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8))
        return str(rng.randint(10 ** (digits - 1) if digits > 1 else 0, 10**digits - 1))

    def code(self, rng):
        parts = []
        for _ in range(rng.choice((1, 2, 2, 3))):
            alphabet = rng.choice(
                (
                    string.ascii_uppercase,
                    string.digits,
                    string.ascii_uppercase + string.digits,
                    string.ascii_lowercase + string.digits,
                )
            )
            parts.append("".join(rng.choice(alphabet) for _ in range(rng.randint(2, 4))))
        return rng.choice(("-", "-", "", "_")).join(parts)

    def word(self, rng):
        kind = rng.random()
        if kind < 0.45:
            return self.pick(rng, "nouns")
        if kind < 0.6:
            return self.pick(rng, rng.choice(("adjectives", "places", "names")))
        return self.letters(rng) if kind > 0.95 else self.made_up(rng)

    def phrase(self, rng):
        words = [self.word(rng) for _ in range(rng.choice((2, 2, 3)))]
        return (
            " ".join(words)
            if rng.random() < 0.8
            else f"{rng.choice(('the', 'a', 'next', 'in'))} {words[0]}"
        )

    def clause(self, rng):
        return clause(rng, self.sentences)

    def details(self, rng):
        """Two or three parts that belong together: "4:15 pm at Gate House", "a cold lantern behind the stable"."""
        parts = [self.part(rng)]
        for _ in range(rng.choice((1, 1, 1, 2))):
            parts += [rng.choice(JOINTS), self.part(rng)]
        return " ".join(parts).replace(" ,", ",")

    def part(self, rng):
        kind = rng.random()
        if kind < 0.3:
            head = rng.choice(("the", "a", "every", "some", "two", "one", "my", ""))
            return f"{head} {self.key_described(rng) if rng.random() < 0.6 else self.word(rng)}".strip()
        names = ("moment", "measure", "full_name", "title", "number", "word", "date", "amount")
        return getattr(self, rng.choice(names))(rng)

    def full_name(self, rng):
        style = rng.random()
        first = rng.choice(HONORIFICS) if style < 0.3 else self.pick(rng, "names")
        last = self.made_up(rng, 3).capitalize() if style < 0.7 else self.pick(rng, "names")
        return f"{first} {last}" if style < 0.9 else f"{first} & {last}"

    def date(self, rng):
        month = rng.choice(MONTHS)
        day, year = rng.randint(1, 28), rng.randint(1900, 2099)
        return rng.choice(
            (
                f"{year}-{rng.randint(1, 12):02d}-{day:02d}",
                f"{day} {month}",
                f"{month} {day}",
                f"{day} {month} {year}",
                f"{month} {year}",
            )
        )

    def time(self, rng):
        return f"{rng.randint(0, 23):02d}:{rng.randint(0, 59):02d}"

    def decimal(self, rng):
        return f"{rng.randint(0, 999)}.{rng.randint(0, 999)}"

    def version(self, rng):
        return rng.choice(("v", "")) + ".".join(str(rng.randint(0, 30)) for _ in range(3))

    def hexadecimal(self, rng):
        return rng.choice(("0x", "")) + "".join(
            rng.choice("0123456789abcdef") for _ in range(rng.randint(4, 8))
        )

    def amount(self, rng):
        number = str(rng.randint(1, 9999))
        return rng.choice(
            (
                f"${number}",
                f"{number} {self.pick(rng, 'units')}",
                f"{number}%",
                f"{number} {self.pick(rng, 'units')}",
            )
        )

    def path(self, rng):
        return "/" + "/".join(self.pick(rng, "nouns") for _ in range(rng.choice((2, 3))))

    def place(self, rng):
        """Where something is: "under the blue kettle"."""
        where = rng.choice(("under", "behind", "in", "on", "near", "inside", "next to", "above"))
        head = self.pick(rng, "adjectives") + " " if rng.random() < 0.5 else ""
        thing = self.pick(rng, "nouns") if rng.random() < 0.7 else self.made_up(rng, 3).lower()
        return f"{where} {rng.choice(('the', 'the', 'the', 'my', 'a'))} {head}{thing}"

    def address(self, rng):
        street = rng.choice(
            (self.pick(rng, "nouns").capitalize(), self.made_up(rng, 3).capitalize())
        )
        return f"{rng.randint(1, 300)} {street} {rng.choice(('Street', 'Road', 'Lane', 'Square'))}"

    def moment(self, rng):
        """A day, a time of day, or both."""
        hour = rng.choice(
            (
                self.time(rng),
                f"{rng.randint(1, 12)}:{rng.randint(0, 59):02d} {rng.choice(('am', 'pm'))}",
                rng.choice(("noon", "midnight", "half past six", "dawn")),
                f"{rng.randint(1, 12)} o'clock",
            )
        )
        return rng.choice((f"{rng.choice(DAYS)} at {hour}", f"{rng.choice(DAYS)} {hour}", hour))

    def digits(self, rng, low, high):
        return "".join(rng.choice(string.digits) for _ in range(rng.randint(low, high)))

    def grouped(self, rng):
        """Digits in groups, as telephone and card numbers are written."""
        count = rng.choice((2, 2, 3, 3, 4))
        groups = [self.digits(rng, 1 if count > 2 else 2, 5) for _ in range(count)]
        prefix = rng.choice(("", "", "", "+", "no. "))
        return prefix + rng.choice((" ", " ", " ", "-", ".", "/")).join(groups)

    def plate(self, rng):
        """Letters and digits with a space between, as on number plates, tickets and doors."""
        letters = "".join(rng.choice(string.ascii_uppercase) for _ in range(rng.randint(1, 3)))
        parts = [letters, self.digits(rng, 1, 4)]
        if rng.random() < 0.3:
            parts.append(rng.choice((self.digits(rng, 1, 3), rng.choice(string.ascii_uppercase))))
        if rng.random() < 0.3:
            parts.reverse()
        return " ".join(parts)

    def thousands(self, rng):
        number = f"{int(10 ** rng.uniform(3, 7)):,}"
        kind = rng.random()
        if kind < 0.5:
            return number
        return f"{number} {self.pick(rng, 'units')}" if kind < 0.8 else f"${number}"

    def listed(self, rng):
        """A few short parts with commas: one value, not several."""

        def part():
            kind = rng.random()
            number = rng.choice((str(rng.randint(1, 99)), rng.choice(string.ascii_uppercase)))
            if kind < 0.6:
                return f"{self.pick(rng, 'nouns')} {number}"
            return number if kind < 0.75 else self.word(rng)

        return ", ".join(part() for _ in range(rng.choice((2, 2, 3))))

    def email(self, rng):
        user = rng.choice((self.pick(rng, "names").lower(), self.made_up(rng, 2).lower()))
        host = rng.choice((self.pick(rng, "nouns"), self.made_up(rng, 2).lower()))
        return f"{user}@{host}.{rng.choice(('org', 'com', 'net', 'io'))}"

    def measure(self, rng):
        sign = "-" if rng.random() < 0.2 else ""
        number = f"{sign}{rng.randint(0, 99)}.{rng.randint(0, 99)}"
        return f"{number} {rng.choice((self.pick(rng, 'units'), 'C', 'm', '%', 'l'))}"

    def title(self, rng):
        """Two or three capitalised words: a place, a firm, a project."""
        words = [
            (
                self.pick(rng, rng.choice(("adjectives", "nouns", "places")))
                if rng.random() < 0.5
                else self.made_up(rng, 3)
            )
            for _ in range(rng.choice((2, 2, 3)))
        ]
        return " ".join(word.capitalize() for word in words)

    def variable(self, rng):
        kind = rng.random()
        if kind < 0.35:
            return "".join(rng.choice(string.ascii_uppercase) for _ in range(rng.randint(3, 7)))
        if kind < 0.55:
            return self.key_identifier(rng)
        if kind < 0.7:
            return rng.choice(string.ascii_lowercase) + str(rng.randint(1, 99))
        if kind < 0.9:
            return self.made_up(rng)
        return self.pick(rng, "nouns")
