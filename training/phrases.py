"""Phrasings from a small grammar: a sentence about a key and a value, and the question that its verb suggests.

A verb row is (present, past, base, participle, links): the words that may stand between the verb and the value. Four
shapes:

  key      "Since March our {key} points to {value} in the hall."      "What does our {key} point to?"
  passive  "As agreed, the {key} was filed under {value}."             "What was the {key} filed under?"
  person   "The clerk labelled the {key} with {value} before noon."    "What did the clerk label the {key} with?"
  value    "{value} is what the porter wrote on the {key}."            "What did the porter write on the {key}?"

Thousands of sentence frames, each seen a few times: what can be learned is where key and value stand, not a list. A
word beside the value is always a function word or a sign, so that the value has an end.
"""

# Said of the key itself: "the {key} VERB link {value}".
KEY_VERBS = (
    ("points", "pointed", "point", ("to", "at")),
    ("leads", "led", "lead", ("to",)),
    ("answers", "answered", "answer", ("to", "with")),
    ("opens", "opened", "open", ("with", "for")),
    ("reacts", "reacted", "react", ("to",)),
    ("listens", "listened", "listen", ("to",)),
    ("runs", "ran", "run", ("on", "as")),
    ("goes", "went", "go", ("by", "to", "under")),
    ("ends", "ended", "end", ("in", "with")),
    ("begins", "began", "begin", ("with", "on")),
    ("stands", "stood", "stand", ("for", "at")),
    ("counts", "counted", "count", ("as",)),
    ("passes", "passed", "pass", ("for", "through")),
    ("depends", "depended", "depend", ("on",)),
    ("carries", "carried", "carry", ("", "the mark")),
    ("shows", "showed", "show", ("", "the text")),
    ("holds", "held", "hold", ("", "exactly")),
    ("means", "meant", "mean", ("", "just")),
    ("needs", "needed", "need", ("", "only")),
    ("wants", "wanted", "want", ("",)),
    ("takes", "took", "take", ("", "about")),
    ("uses", "used", "use", ("", "mostly")),
    ("accepts", "accepted", "accept", ("", "only")),
    ("returns", "returned", "return", ("",)),
    ("prints", "printed", "print", ("",)),
    ("reads", "read", "read", ("", "as")),
    ("weighs", "weighed", "weigh", ("", "roughly")),
    ("becomes", "became", "become", ("",)),
    ("remains", "remained", "remain", ("", "at")),
    ("equals", "equalled", "equal", ("",)),
    ("matches", "matched", "match", ("",)),
    ("wears", "wore", "wear", ("",)),
    ("brings", "brought", "bring", ("",)),
    ("hides", "hid", "hide", ("", "behind")),
)

# Done to the key: "the {key} was VERB link {value}", "PERSON VERB the {key} link {value}".
DONE_VERBS = (
    ("labelled", "label", ("as", "with")),
    ("marked", "mark", ("as", "with", "by")),
    ("filed", "file", ("under", "as")),
    ("stored", "store", ("under", "in", "at", "as")),
    ("listed", "list", ("as", "under", "at")),
    ("registered", "register", ("as", "under")),
    ("booked", "book", ("under", "for")),
    ("replaced", "replace", ("by", "with")),
    ("traded", "trade", ("for",)),
    ("moved", "move", ("to", "behind")),
    ("sent", "send", ("to", "via")),
    ("renamed", "rename", ("to",)),
    ("named", "name", ("after", "")),
    ("called", "call", ("",)),
    ("set", "set", ("to", "at")),
    ("fixed", "fix", ("at", "with")),
    ("locked", "lock", ("with", "behind")),
    ("unlocked", "unlock", ("by", "with")),
    ("paired", "pair", ("with",)),
    ("tagged", "tag", ("", "as", "with")),
    ("signed", "sign", ("as", "with")),
    ("dated", "date", ("", "to")),
    ("priced", "price", ("at",)),
    ("sold", "sell", ("for", "to")),
    ("bought", "buy", ("for", "from")),
    ("reached", "reach", ("at", "via", "under")),
    ("planned", "plan", ("for",)),
    ("linked", "link", ("to", "with")),
    ("mapped", "map", ("to",)),
    ("known", "know", ("as", "for")),
    ("seen", "see", ("near", "as")),
    ("given", "give", ("", "to")),
    ("handed", "hand", ("to", "over to")),
    ("tuned", "tune", ("to",)),
    ("copied", "copy", ("to", "from")),
    ("guarded", "guard", ("by",)),
    ("described", "describe", ("as",)),
    ("quoted", "quote", ("at", "as")),
    ("entered", "enter", ("as", "under")),
)
# Their past where it differs from the participle ("the clerk gave", not "given").
PAST = {"given": "gave", "known": "knew", "seen": "saw"}

# Put on or with the key: "PERSON VERB {value} link the {key}".
PUT_VERBS = (
    ("wrote", "write", "written", ("on", "under", "beside", "for")),
    ("put", "put", "put", ("on", "into", "behind", "next to")),
    ("chose", "choose", "chosen", ("for", "as the name of")),
    ("found", "find", "found", ("in", "on", "inside", "under")),
    ("kept", "keep", "kept", ("for", "in", "with")),
    ("entered", "enter", "entered", ("for", "in")),
    ("gave", "give", "given", ("to", "for")),
    ("painted", "paint", "painted", ("on", "above")),
    ("used", "use", "used", ("for", "with")),
    ("typed", "type", "typed", ("into", "for")),
    ("noted", "note", "noted", ("for", "beside")),
    ("printed", "print", "printed", ("on", "under")),
    ("paid", "pay", "paid", ("for",)),
    ("offered", "offer", "offered", ("for", "to")),
    ("assigned", "assign", "assigned", ("to",)),
    ("reserved", "reserve", "reserved", ("for",)),
    ("sent", "send", "sent", ("to", "for")),
    ("saved", "save", "saved", ("as the", "for", "in")),
    ("told", "tell", "told", ("to",)),
    ("picked", "pick", "picked", ("for",)),
)

PEOPLE = (
    "the clerk", "the porter", "the teacher", "our neighbour", "my uncle", "her sister", "the captain", "the guide",
    "the editor", "someone", "nobody else", "the doctor", "the farmer", "a friend", "the mayor", "the guard", "we",
    "they", "he", "she", "I", "the new colleague", "the old owner", "the committee", "the board", "the team",
    "the inspector", "the tailor", "your brother", "the visitors", "whoever came first", "the previous tenant",
)  # fmt: skip
THINGS = (
    "hall", "meeting", "report", "list", "door", "office", "lunch", "winter", "summer", "storm", "letter", "table",
    "harbour", "station", "garden", "market", "visit", "journey", "repair", "inspection", "delivery", "contract",
    "evening", "morning", "holiday", "war", "concert", "lesson", "exam", "invoice", "floor", "wall", "cover", "page",
    "screen", "archive", "kitchen", "cellar", "roof", "bridge", "river", "north side", "second drawer", "last page",
)  # fmt: skip
PREPOSITIONS = (
    "in", "on", "at", "near", "before", "after", "during", "since", "behind", "under", "beside", "until", "for",
    "because of", "in spite of", "according to", "instead of", "along with", "by", "without", "throughout", "above",
)  # fmt: skip
DETERMINERS = ("the", "the", "the", "a", "our", "their", "every", "that", "this", "his", "last")
KEY_DETERMINERS = (
    "the", "the", "the", "the", "our", "my", "her", "his", "their", "your", "this", "that", "the old", "the other", "",
)  # fmt: skip
WHENS = (
    "today", "tomorrow", "for now", "again", "this time", "every year", "at night", "as usual", "by mistake", "at last",
    "once more", "in the end", "these days", "at first", "on purpose", "in writing", "without delay",
    "and nothing else",    "as everyone knows", "or so it seems", "if I remember well", "to be exact",
    "as far as we know",
)  # fmt: skip
OPENERS = (
    "Please note that", "Do not forget that", "It seems that", "Remember:", "Just so you know,", "For the record,",
    "Somebody said that", "It turned out that", "We were told that", "In short,", "By now", "Note that",
    "Be aware that",    "Rumour has it that", "The sign says that", "You should know that",
    "I wrote down that", "Oddly enough,", "Also,",
    "Of course", "Fun fact:", "Good to know:", "To my surprise,", "As agreed,", "In case anyone asks,", "Meanwhile",
)  # fmt: skip
WHAT_NOUNS = (
    "value", "word", "name", "number", "code", "label", "text", "thing", "entry", "reference", "answer", "one", "item",
    "string", "mark",
)  # fmt: skip
GENERIC = (
    "What about {key}?", "Tell me about {key}.", "What do we know about {key}?", "Anything on {key}?", "{key}?",
    "Which one is it for {key}?", "What belongs with {key}?", "And {key}?", "Say what goes with {key}.",
    "I forgot: what was it with {key}?", "What is said about {key}?", "Which value goes with {key}?", "Recall {key}.",
    "What does the text say about {key}?", "Find {key}.", "Do you remember {key}?",
)  # fmt: skip


def place(rng):
    """A prepositional phrase."""
    return f"{rng.choice(PREPOSITIONS)} {rng.choice(DETERMINERS)} {rng.choice(THINGS)}"


def deed(rng):
    """Somebody did something: a clause beside the point."""
    verb, *_ = rng.choice(DONE_VERBS)
    return joined(
        rng.choice(PEOPLE), PAST.get(verb, verb), rng.choice(DETERMINERS), rng.choice(THINGS)
    )


def opening(rng):
    kind = rng.random()
    if kind < 0.4:
        return ""
    if kind < 0.65:
        return rng.choice(OPENERS)
    if kind < 0.85:
        return place(rng) + ","
    joint = rng.choice(("When", "After", "Because", "Although", "Before", "While"))
    return f"{joint} {deed(rng)},"


def ending(rng):
    kind = rng.random()
    if kind < 0.5:
        return ""
    if kind < 0.75:
        return " " + place(rng)
    if kind < 0.9:
        return " " + rng.choice(WHENS)
    joint = rng.choice((", and", ", so", ", but", " because", " while", " until"))
    return f"{joint} {deed(rng)}"


def joined(*parts):
    return " ".join(part for part in parts if part)


def key_sentence(rng, key):
    present, past, base, links = rng.choice(KEY_VERBS)
    link = rng.choice(links)
    tense = rng.random()
    verb, ask = (
        (present, f"What does {key} {base}")
        if tense < 0.45
        else (past, f"What did {key} {base}")
        if tense < 0.8
        else (f"will {base}", f"What will {key} {base}")
        if tense < 0.9
        else (f"must {base}", f"What must {key} {base}")
    )
    return joined(key, verb, link, "{value}"), joined(ask, link), base


def passive_sentence(rng, key):
    participle, base, links = rng.choice(DONE_VERBS)
    link = rng.choice(links)
    be = rng.choice(("was", "was", "is", "has been", "will be", "had to be", "can be"))
    first, rest = (be.split(" ", 1) + [""])[:2]
    return (
        joined(key, be, participle, link, "{value}"),
        joined("What", first, key, rest, participle, link),
        base,
    )


def person_sentence(rng, key):
    participle, base, links = rng.choice(DONE_VERBS)
    link, who = rng.choice(links), rng.choice(PEOPLE)
    return (
        joined(who, PAST.get(participle, participle), key, link, "{value}"),
        joined("What did", who, base, key, link),
        base,
    )


def put_sentence(rng, key):
    past, base, participle, links = rng.choice(PUT_VERBS)
    link, who = rng.choice(links), rng.choice(PEOPLE)
    kind = rng.random()
    if kind < 0.4:
        return (
            joined(who, past, "{value}", link, key),
            joined("What did", who, base, link, key),
            base,
        )
    if kind < 0.7:
        be = rng.choice(("was", "was", "is", "has been"))
        first, rest = (be.split(" ", 1) + [""])[:2]
        return (
            joined("{value}", be, participle, link, key),
            joined("What", first, rest, participle, link, key),
            base,
        )
    return (
        joined("{value} is what", who, past, link, key),
        joined("What did", who, base, link, key),
        base,
    )


# put_sentence has the value first and stands twice: those facts are the harder ones.
SHAPES = (key_sentence, passive_sentence, person_sentence, put_sentence, put_sentence)


def question(rng, key, asked, base, opener, tail):
    """The sentence's own question mostly; else one that shares the verb, or only the key."""
    kind = rng.random()
    if kind < 0.55:
        text = asked
    elif kind < 0.75:
        text = asked.replace("What", f"Which {rng.choice(WHAT_NOUNS)}", 1)
    elif kind < 0.85:
        text = rng.choice(
            (f"What to {base} with {key}", f"How does one {base} {key}", f"{key}: {base} what")
        )
    else:
        return rng.choice(GENERIC).replace("{key}", key)
    if tail and rng.random() < 0.3 and not tail.startswith(","):
        text += tail
    if opener.endswith(",") and rng.random() < 0.2:
        text = f"{opener} {text[0].lower()}{text[1:]}"
    return text + rng.choice(("?", "?", "?", "?", ""))


def grammar_form(rng):
    """{id, fact, question} like an entry of tasks.json's forms."""
    key = joined(rng.choice(KEY_DETERMINERS), "{key}")
    sentence, asked, base = rng.choice(SHAPES)(rng, key)
    opener, tail = opening(rng), ending(rng)
    fact = joined(opener, sentence) + tail
    if fact[0].isalpha() and rng.random() < 0.9:
        fact = fact[0].upper() + fact[1:]
    fact += rng.choice((".", ".", ".", ".", "!", "", ";"))
    asking_key = key if rng.random() < 0.7 else joined(rng.choice(KEY_DETERMINERS), "{key}")
    if asking_key != key:
        asked = asked.replace(key, asking_key)
    text = question(rng, asking_key, asked, base, opener, tail)
    return {
        "id": "grammar",
        "fact": fact,
        "question": text[0].upper() + text[1:] if text[0] != "{" else text,
    }
