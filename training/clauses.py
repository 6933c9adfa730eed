"""Phrasings of one or two clauses in any words: an event with the value, the key somewhere about it, details around.

  event     "she VERBed {value} beside it"                     "What did she VERB beside it"
  key       "When the clerk VERBed the {key}, ..."             "... when the clerk VERBed the {key}?"
  details   "... on Thursday", "... after 12 minutes", "... ADVERBly", of which each could be a value and none is

Verbs, nouns, adjectives and adverbs are words of the corpus and made-up ones (`draw`), in the inflection that the place
asks for, so that only the grammar says where the value stands and which words of the line are not asked for.
"""

from .phrases import PEOPLE, THINGS, WHAT_NOUNS, WHENS, joined
from .reword import inflected, is_content
from .words import DAYS, MONTHS

DETERMINERS = ("the", "the", "the", "the", "a", "our", "my", "their", "his", "every", "that")
KEY_DETERMINERS = ("the", "the", "the", "the", "our", "my", "that", "their", "")
LINKS = (
    "to", "to", "at", "at", "with", "with", "as", "as", "by", "from", "into", "in", "under", "for", "against", "like",
    "on", "towards", "after", "of", "behind", "through", "only to", "back to", "exactly at", "over",
)  # fmt: skip
PREPOSITIONS = (
    "in", "on", "at", "near", "before", "after", "during", "behind", "under", "beside", "for", "by", "without", "of",
    "with", "from", "about", "across", "above", "past", "into", "along with", "because of", "next to",
)  # fmt: skip
ABOUT = (
    "for", "about", "of", "with", "in", "on", "concerning", "behind", "from", "at", "above", "near", "to", "against",
)  # fmt: skip
NUMBERS = ("two", "three", "five", "seven", "ten", "twelve", "forty", "a dozen")
NAMES = (
    "Anna", "Ben", "Clara", "David", "Emma", "Frank", "Helen", "Ivan", "Jane", "Karl", "Laura", "Martin",
)  # fmt: skip
CONNECTORS = (
    " and", ", and", ", so", " until", ", but", " because", " while", ";", " then", ", yet", " before", " when",
    " after",
)  # fmt: skip
CONDITIONS = (
    "When", "If", "After", "Because", "Whenever", "Before", "As soon as", "While", "Once", "Since", "Every time",
)  # fmt: skip
ADVERBS = (
    "straight", "all the way back", "back", "right away", "again", "together", "twice", "instead", "exactly",
    "somewhere", "ahead", "apart", "deep down", "alone", "aloud", "at once", "only", "still", "by hand",
    "far too often",
)  # fmt: skip
PRONOUNS = ("it", "it", "it", "she", "he", "they", "we")


class Speech:
    """Words of one phrasing. draw(rng) gives a lower-case word."""

    def __init__(self, rng, draw):
        self.rng, self.draw = rng, draw

    def of(self, choices):
        return self.rng.choice(choices)

    def chance(self, share):
        return self.rng.random() < share

    def noun(self):
        return self.draw(self.rng) if self.chance(0.8) else self.of(THINGS)

    def phrase(self):
        """A thing with its determiner, sometimes an adjective."""
        adjective = self.draw(self.rng) if self.chance(0.3) else ""
        return joined(self.of(DETERMINERS), adjective, self.noun())

    def subject(self):
        kind = self.rng.random()
        if kind < 0.3:
            return self.of(PEOPLE)
        if kind < 0.55:
            return inflected(self.draw(self.rng), "s")
        return self.of(NAMES) if kind < 0.62 else self.phrase()

    def adverb(self):
        return self.draw(self.rng) + "ly" if self.chance(0.6) else self.of(ADVERBS)

    def detail(self):
        """Something beside the point, which in another line might be the value."""
        kind = self.rng.random()
        if kind < 0.45:
            return joined(self.of(PREPOSITIONS), self.phrase())
        if kind < 0.55:
            return joined(self.of(PREPOSITIONS), self.noun())
        if kind < 0.68:
            return self.adverb()
        if kind < 0.78:
            return "on " + self.of(DAYS) if self.chance(0.6) else "in " + self.of(MONTHS)
        if kind < 0.86:
            count = str(self.rng.randint(2, 2000)) if self.chance(0.5) else self.of(NUMBERS)
            return joined(self.of(("after", "for", "at", "in", "by")), count, self.noun() + "s")
        return self.of(WHENS)

    def maybe(self, share):
        return self.detail() if self.chance(share) else ""

    def verb(self):
        return self.draw(self.rng)

    def predicate(self, subject, verb):
        """(what the sentence says, what its question has before the subject, what it has after the subject)."""
        if self.chance(0.12):  # "hopes to VERB"
            wishes, helper, rest = self.predicate(subject, self.verb())
            return f"{wishes} to {verb}", helper, f"{rest} to {verb}"
        kind = self.rng.random()
        if kind < 0.55:
            return inflected(verb, "ed"), "did", verb
        many = subject.endswith("s") or subject in ("we", "they", "I")
        if kind < 0.8:
            return verb if many else inflected(verb, "s"), "do" if many else "does", verb
        modal = self.of(("will", "must", "should", "can", "could", "may"))
        return f"{modal} {verb}", modal, verb


def asking(speech, link):
    """(the question's first words, the link if it stays behind)."""
    what = speech.of(
        (
            "What",
            "What",
            "What",
            "What",
            "Which " + speech.of(WHAT_NOUNS),
            "Who or what",
            "Whom or what",
        )
    )
    if link in LINKS and speech.chance(0.3):
        return joined(link.capitalize(), what.lower()), ""
    if link in ("as", "like", "by") and speech.chance(0.3):
        return "How", ""
    return what, link


def linked(speech, link):
    """(what stands before the value, the question's first words, what of it stays behind)."""
    if speech.chance(0.2):  # "under the heading {value}": "Under which heading ...?"
        noun = speech.noun()
        before = joined(link, speech.of(("the", "the", "the", "our", "this")), noun)
        if link and speech.chance(0.5):
            return before, joined(link.capitalize(), "which", noun), ""
        return before, f"Which {noun}", link
    what, behind = asking(speech, link)
    before = joined(link, speech.of(("only", "exactly", "just"))) if speech.chance(0.06) else link
    return before, what, behind


def object_event(speech, subject):
    """SUBJECT VERBed [link] {value} [detail]."""
    says, helper, rest = speech.predicate(subject, speech.verb())
    link = "" if speech.chance(0.45) else speech.of(LINKS)
    link, what, behind = linked(speech, link)
    tail = speech.maybe(0.4)
    asked_tail = tail if tail and speech.chance(0.6) else ""
    return (
        joined(subject, says, link, "{value}", tail),
        joined(what, helper, subject, rest, behind, asked_tail),
    )


def passive_event(speech, subject):
    """SUBJECT was VERBed link {value} [detail]."""
    verb, be = (
        speech.verb(),
        speech.of(("was", "was", "is", "were", "has been", "will be", "must be")),
    )
    first, rest = (be.split(" ", 1) + [""])[:2]
    link, what, behind = linked(speech, speech.of(LINKS) if speech.chance(0.85) else "")
    participle, tail = inflected(verb, "ed"), speech.maybe(0.3)
    return (
        joined(subject, be, participle, link, "{value}", tail),
        joined(what, first, subject, rest, participle, behind, tail if speech.chance(0.4) else ""),
    )


def with_object(speech, key):
    """Value and key in one clause: SUBJECT VERBed {value} link the {key}."""
    subject = speech.subject()
    says, helper, rest = speech.predicate(subject, speech.verb())
    adverb = speech.adverb() if speech.chance(0.2) else ""
    link = speech.of(LINKS + PREPOSITIONS)
    what, _ = asking(speech, "")
    if speech.chance(0.6):
        fact = joined(subject, says, "{value}", adverb, link, key, speech.maybe(0.3))
        return fact, joined(what, helper, subject, rest, link, key)
    if speech.chance(0.2):  # "christened the {key} {value}"
        fact = joined(subject, says, key, "{value}", speech.maybe(0.2))
        return fact, joined(speech.of(("what", "how")), helper, subject, rest, key)
    other = speech.of(LINKS)
    fact = joined(subject, says, key, adverb, other, "{value}", speech.maybe(0.3))
    what, behind = asking(speech, other)
    return fact, joined(what, helper, subject, rest, key, behind)


def value_does(speech, key):
    """{value} VERBs the {key}: the value is the subject."""
    says, _, verb = speech.predicate("it", speech.verb())
    kind, tail = speech.rng.random(), speech.maybe(0.4)
    aside = joined(
        speech.of(("with", "in", "after", "under", "at", "despite")),
        speech.draw(speech.rng),
        speech.noun(),
    )
    lead = speech.of(
        ("", "", "", "it was", "somehow", speech.adverb(), "by " + speech.noun(), aside)
    )
    if kind < 0.35:
        return joined(lead, "{value}", says, key, tail), joined(
            "what", says, key, tail if speech.chance(0.5) else ""
        )
    if kind < 0.6:
        link = speech.of(LINKS)
        thing = speech.phrase()
        return joined(lead, "{value}", says, thing, link, key, tail), joined(
            "what", says, thing, link, key
        )
    if kind < 0.8:
        be = speech.of(("was", "is", "had been", "will be"))
        done, link = inflected(verb, "ed"), speech.of(LINKS + PREPOSITIONS)
        return joined(lead, "{value}", be, done, link, key, tail), joined(
            "what", be, done, link, key
        )
    thing = joined(speech.of(("the", "a", "this")), speech.draw(speech.rng), speech.noun())
    link = speech.of(("of", "for", "to", "behind", "in"))
    who = speech.subject()
    told, *_ = speech.predicate(who, speech.verb())
    close = speech.of((".", ", " + speech.detail()))
    return (
        joined(who, told, "{value},", thing, link, key) + close.rstrip("."),
        joined(
            speech.of(("who or what", "what", "which " + speech.of(WHAT_NOUNS))),
            speech.of(("is", "was")),
            thing,
            link,
            key,
        ),
    )


def by_means_of(speech, key):
    """Without {value} / Having VERBed {value} / VERBing {value} ... the {key}."""
    who, verb = speech.subject(), speech.verb()
    says, helper, rest = speech.predicate(who, speech.verb())
    kind = speech.rng.random()
    if kind < 0.3:
        lead = speech.of(("Without", "Thanks to", "Because of", "With", "Despite", "By"))
        asked = joined(lead, "what", helper, who, rest, key)
        if speech.chance(0.4):
            asked = joined("what", helper, who, speech.of(("need", "use", "have")), "to", rest, key)
        return joined(lead, "{value}", who, says, key, speech.maybe(0.3)), asked
    if kind < 0.55:
        lead = joined("Having", inflected(verb, "ed"))
        return joined(lead, "{value},", who, says, key), joined(
            "what did", who, verb, speech.of(("to", "before")), rest, key
        )
    if kind < 0.75:
        thing = speech.phrase()
        modal = speech.of(("will", "can", "should", "may"))
        purpose = joined(speech.verb(), thing, "to", rest, key)
        return (
            joined(inflected(verb, "ing"), "{value}", modal, purpose),
            joined(
                "what",
                speech.of(("should I", "can I", "do I", "must one")),
                verb,
                speech.of(("so that", "to have", "and")),
                thing,
                inflected(rest, "s"),
                key,
            ),
        )
    link = speech.of(PREPOSITIONS)
    tail = (
        joined(
            speech.of(("or", "and", "whenever", "before", "if", "so that")),
            speech.of((who, "it", "you")),
            says,
            key,
        )
        if speech.chance(0.6)
        else joined(link, key)
    )
    if speech.chance(0.2):  # "VERB {value} twice, for it VERBs the {key}"
        why = joined(
            speech.of((", for", " because", ", since", ";", " so that")), "it", inflected(rest, "s")
        )
        fact = joined(verb, "{value}", speech.adverb()) + joined(why, key, speech.maybe(0.3))
        return fact, joined("what", inflected(rest, "s"), key)
    asked_tail = tail if not tail.startswith("or ") else "with " + key
    ask = speech.of(
        (
            f"what should be {inflected(verb, 'ed')}",
            f"what should I {verb}",
            f"what is {inflected(verb, 'ed')}",
            f"what must one {verb}",
        )
    )
    return joined(
        speech.of(("", "", "please", "always")), verb, "{value}", speech.maybe(0.3), tail
    ), joined(ask, asked_tail)


def meanwhile(speech, key):
    """SUBJECT VERBs at the {key}, VERBing {value}; SUBJECT VERBs to the {key} hoping to VERB {value}."""
    who, verb, link = speech.subject(), speech.verb(), speech.of(ABOUT)
    says, _, rest = speech.predicate(who, speech.verb())
    _, ask, _ = speech.predicate(who, verb)
    joint = speech.of((" ", ", "))
    value, what, behind = linked(speech, "" if speech.chance(0.6) else speech.of(LINKS))
    if speech.chance(0.4):
        wish = speech.of(("hope", "want", "try", speech.draw(speech.rng)))
        second = joined(inflected(wish, "ing"), "to", verb)
        asked = joined(what, ask, who, wish, "to", verb, behind, link, key)
    else:
        second = inflected(verb, "ing")
        close = joined(link, key) if speech.chance(0.7) else joined("when they", rest, link, key)
        asked = joined(what, ask, who, verb, behind, close)
    fact = (
        joined(who, says, link, key) + joint + joined(second, value, "{value}", speech.maybe(0.3))
    )
    return fact, asked


def noted(speech, key):
    """VERBed in the NOUN: {value}, VERBing the {key}; "{value}", VERBed the NOUN, VERBing the {key}."""
    verb, thing, link = speech.verb(), speech.phrase(), speech.of(PREPOSITIONS)
    about = joined(inflected(speech.verb(), "ing"), speech.of(("", "to", "at", "on")), key)
    asked_about = joined(speech.of(ABOUT), key)
    if speech.chance(0.5):
        where = joined(inflected(verb, "ed"), link, thing)
        joint = speech.of((": ", ", ", " - ", "; "))
        return f"{where}{joint}{{value}}, {about}", joined("what is", where, asked_about)
    opening, closing = speech.of((('"', '"'), ("'", "'"), ("", "")))
    said = (
        joined(inflected(verb, "ed"), thing)
        if speech.chance(0.7)
        else joined(thing, inflected(verb, "ed"))
    )
    return f"{opening}{{value}}{closing}, {said}, {about}", joined(
        "what did", thing, verb, asked_about
    )


def around(speech, key):
    """An event with the value, and a clause or a phrase with the key before or behind it."""
    kind = speech.rng.random()
    event = passive_event if speech.chance(0.3) else object_event
    if kind < 0.3:  # the key is who does it
        return event(speech, key)
    who = speech.subject()
    if kind < 0.45:
        link = speech.of(ABOUT)
        fact, asked = event(speech, joined(who, link, key))
        return fact, asked
    doer = speech.subject()
    told, *_ = speech.predicate(doer, speech.verb())
    if kind < 0.62:
        condition = joined(speech.of(CONDITIONS), doer, told, key, speech.maybe(0.25))
        fact, asked = event(speech, who)
        reference = joined(speech.of(("for", "about", "with", "in the case of", "at", "on")), key)
        if speech.chance(0.4):
            reference = joined("when", doer, told, key)
        return condition + ", " + fact, joined(asked, reference)
    if kind < 0.8:
        pronoun = speech.of(PRONOUNS)
        fact, asked = event(speech, pronoun)
        named = key if pronoun == "it" else doer
        first = joined(doer, told, key, speech.maybe(0.35))
        if pronoun == "it" and speech.chance(0.5):
            first = joined(key, inflected(speech.verb(), "ed"), speech.maybe(0.5))
        asked = asked.replace(f" {pronoun} ", f" {named} ", 1)
        if named != key:
            asked = joined(asked, speech.of(ABOUT + ("beside", "after")), key)
        return first + speech.of(CONNECTORS) + " " + fact, asked
    if kind < 0.9:
        lead = speech.of(
            (
                "Regarding",
                "As for",
                "Concerning",
                "Speaking of",
                "About",
                "On the subject of",
                "For",
            )
        )
        fact, asked = event(speech, who)
        return lead + " " + key + speech.of((", ", ": ")) + fact, joined(
            asked, speech.of(ABOUT + (lead.lower(),)), key
        )
    relative = joined(who, speech.of(("who", "that", "with", "near")), speech.verb(), key)
    fact, asked = event(speech, relative)
    return fact, asked


SHAPES = (
    around, around, around, around, with_object, with_object, value_does, value_does, by_means_of, by_means_of, noted,
    meanwhile,
)  # fmt: skip
FORGOTTEN = 0.15
QUOTED = (
    '"{value}"', "'{value}'", "({value})", "the word {value}", "the code {value}", "no. {value}",
)  # fmt: skip


def without_a_word(rng, asked):
    """The question less one of its content words: people do not repeat every word."""
    words = asked.split(" ")
    places = [
        at for at, word in enumerate(words) if at > 1 and "{" not in word and is_content(word)
    ]
    if places:
        del words[rng.choice(places)]
    return " ".join(words)


def beginning(speech):
    """What stands before the point: a detail, who says so, or a whole clause."""
    kind = speech.rng.random()
    if kind < 0.4:
        return speech.detail() + ","
    if kind < 0.6:
        return joined(speech.of(NAMES + PEOPLE), inflected(speech.verb(), "s"), "that")
    if kind < 0.75:
        return speech.adverb() + ","
    who = speech.subject()
    says, *_ = speech.predicate(who, speech.verb())
    return joined(who, says, speech.phrase(), speech.maybe(0.2)) + speech.of(CONNECTORS)


def clause_form(rng, draw):
    """{id, fact, question} like an entry of tasks.json's forms; draw(rng) gives a lower-case word."""
    speech = Speech(rng, draw)
    key = joined(rng.choice(KEY_DETERMINERS), "{key}")
    fact, asked = rng.choice(SHAPES)(speech, key)
    opener = ""
    if speech.chance(0.35):
        opener = beginning(speech)
        if fact.split(" ")[0] not in NAMES:
            fact = fact[0].lower() + fact[1:]
    closing = ""
    if speech.chance(0.25):
        closing = rng.choice((", ", " ")) + (
            joined("of all", speech.noun() + "s") if speech.chance(0.2) else speech.detail()
        )
    if speech.chance(0.07):
        fact = fact.replace("{value}", rng.choice(QUOTED), 1)
    fact = joined(opener, fact) + closing
    fact = fact[0].upper() + fact[1:] if fact[0].isalpha() else fact
    if key != "{key}" and speech.chance(0.2):
        asked = asked.replace(key, joined(rng.choice(KEY_DETERMINERS), "{key}"))
    if speech.chance(FORGOTTEN):
        asked = without_a_word(rng, asked)
    asked = asked[0].upper() + asked[1:] if asked[0].isalpha() else asked
    return {
        "id": "clause",
        "fact": fact + rng.choice((".", ".", ".", ".", "!", "", ";")),
        "question": asked + rng.choice(("?", "?", "?", "?", "")),
    }
