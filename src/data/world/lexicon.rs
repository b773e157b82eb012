//! The words of the world: what is reviewed, what is said about it, and what each phrase is worth.
//!
//! Values are in units of "good" = 1; degrees multiply them. No phrase stands in two classes of one slot, so a clause has one
//! reading.

/// What stands before a thing in a prompt; one of these and a thing make a subject.
pub(super) const MODIFIERS: &[&str] = &[
    "red", "blue", "green", "black", "white", "grey", "brown", "yellow", "orange", "purple", "silver", "golden", "small",
    "large", "tall", "wide", "narrow", "round", "square", "slim", "folding", "portable", "wooden", "metal", "plastic", "steel",
    "copper", "ceramic", "canvas", "leather", "striped", "spotted", "travel", "garden", "kitchen", "office", "winter", "summer",
    "Danish", "Swiss", "Italian", "Korean", "vintage", "modern", "new", "second", "spare", "rental",
];

pub(super) const THINGS: &[&str] = &[
    "desk lamp",
    "kettle",
    "toaster",
    "backpack",
    "umbrella",
    "keyboard",
    "chair",
    "teapot",
    "blender",
    "camera",
    "headset",
    "phone case",
    "suitcase",
    "mug",
    "clock",
    "radio",
    "speaker",
    "tent",
    "sleeping bag",
    "bicycle",
    "helmet",
    "scooter",
    "drill",
    "hammer",
    "ladder",
    "mirror",
    "carpet",
    "curtain",
    "pillow",
    "blanket",
    "mattress",
    "sofa",
    "bookshelf",
    "wardrobe",
    "printer",
    "monitor",
    "laptop",
    "tablet",
    "charger",
    "mouse",
    "router",
    "vacuum cleaner",
    "iron",
    "fan",
    "heater",
    "freezer",
    "oven",
    "pan",
    "knife",
    "grater",
    "bottle",
    "flask",
    "lunch box",
    "cooler",
    "grill",
    "lawn mower",
    "hose",
    "rake",
    "bench",
    "swing",
    "kite",
    "puzzle",
    "chess set",
    "guitar",
    "piano stool",
    "drum",
    "flute",
    "notebook",
    "pen",
    "stapler",
    "wallet",
    "belt",
    "jacket",
    "coat",
    "raincoat",
    "sweater",
    "scarf",
    "hat",
    "watch",
    "bracelet",
    "necklace",
    "razor",
    "hair dryer",
    "toothbrush",
    "candle",
    "vase",
    "doormat",
    "hammock",
    "projector",
    "scale",
    "thermometer",
    "rug",
    "stove",
    "basket",
    "torch",
    "telescope",
];

pub(super) const ASPECTS: &[&str] =
    &["price", "design", "size", "weight", "finish", "packaging", "delivery", "manual", "warranty", "colour", "shape", "quality"];

/// `{s}`: the subject.
pub(super) const PLAIN_PROMPTS: &[&str] = &[
    "Review of the {s}:",
    "How is the {s}?",
    "Is the {s} any good?",
    "What about the {s}?",
    "Tell me about the {s}.",
    "Your view of the {s}:",
];

/// `{a}`: the aspect asked for.
pub(super) const ASPECT_PROMPTS: &[&str] = &[
    "How is the {a} of the {s}?",
    "What about the {a} of the {s}?",
    "Tell me about the {a} of the {s}.",
    "Review of the {s} and its {a}:",
    "Your view of the {a} of the {s}:",
];

pub(super) const CONNECTIVES: &[&str] = &["and", "but", "although", "though", "while", "yet"];

/// Said at the start of a sentence, before a comma.
pub(super) const OPENERS: &[&str] =
    &["overall", "honestly", "in short", "to be fair", "frankly", "all in all", "as for me", "after a month"];

/// A slot's class: its name in patterns and its phrases with their values.
pub(super) type Class = (&'static str, &'static [(&'static str, f64)]);

/// Classes whose phrases carry the sentiment of a clause.
pub(super) const SENTIMENT: &[Class] = &[
    (
        "quality",
        &[
            ("excellent", 2.0),
            ("superb", 2.0),
            ("perfect", 2.0),
            ("wonderful", 2.0),
            ("great", 1.5),
            ("beautiful", 1.5),
            ("good", 1.0),
            ("nice", 1.0),
            ("solid", 1.0),
            ("handy", 1.0),
            ("decent", 0.5),
            ("fine", 0.5),
            ("average", 0.0),
            ("ordinary", 0.0),
            ("mediocre", -0.5),
            ("weak", -1.0),
            ("dull", -1.0),
            ("flimsy", -1.0),
            ("bad", -1.5),
            ("poor", -1.5),
            ("ugly", -1.5),
            ("awful", -2.0),
            ("terrible", -2.0),
            ("horrible", -2.0),
            ("hopeless", -2.0),
        ],
    ),
    (
        "verdict",
        &[("a joy", 2.0), ("a pleasure", 1.5), ("a success", 1.0), ("a mistake", -1.5), ("a mess", -1.5), ("a disaster", -2.0)],
    ),
    ("feel", &[("love", 2.0), ("enjoy", 1.5), ("like", 1.0), ("dislike", -1.0), ("hate", -2.0)]),
    ("feels", &[("loves", 2.0), ("enjoys", 1.5), ("likes", 1.0), ("dislikes", -1.0), ("hates", -2.0)]),
    (
        "regard",
        &[
            ("have only praise for", 2.0),
            ("am glad about", 1.5),
            ("care little for", -1.0),
            ("am tired of", -1.5),
            ("can not stand", -2.0),
        ],
    ),
    ("state", &[("delighted", 2.0), ("happy", 1.5), ("pleased", 1.0), ("disappointed", -1.5), ("angry", -1.5)]),
    ("manner", &[("perfectly", 2.0), ("smoothly", 1.5), ("well", 1.0), ("badly", -1.5), ("terribly", -2.0)]),
    (
        "event",
        &[
            ("still looks like new", 1.5),
            ("survived every fall", 1.5),
            ("stopped working twice", -1.5),
            ("broke after a week", -2.0),
            ("fell apart", -2.0),
        ],
    ),
    (
        "predicate",
        &[
            ("could not be better", 2.0),
            ("is hard to beat", 1.5),
            ("could be better", -0.5),
            ("lets us down", -1.0),
            ("could not be worse", -2.0),
        ],
    ),
    (
        "part",
        &[
            ("the best part", 2.0),
            ("the high point", 1.5),
            ("a strong point", 1.0),
            ("a weak point", -1.0),
            ("the low point", -1.5),
            ("the worst part", -2.0),
        ],
    ),
    ("buy", &[("buy it again", 1.5), ("recommend it", 1.5), ("give it to a friend", 1.0)]),
];

/// How far a quality goes.
pub(super) const DEGREES: &[Class] = &[
    (
        "degree",
        &[
            ("extremely", 1.75),
            ("very", 1.5),
            ("really", 1.25),
            ("quite", 1.0),
            ("rather", 0.75),
            ("fairly", 0.75),
            ("slightly", 0.5),
        ],
    ),
    ("surely", &[("really", 1.25), ("certainly", 1.25), ("mostly", 0.75)]),
];

/// Classes that change nothing.
pub(super) const NEUTRAL: &[Class] = &[
    ("copula", &[("is", 1.0), ("was", 1.0), ("seems", 1.0), ("looks", 1.0), ("feels", 1.0), ("remains", 1.0)]),
    ("isnt", &[("isn't", 1.0), ("is not", 1.0), ("was not", 1.0), ("wasn't", 1.0)]),
    ("seem", &[("seem", 1.0), ("look", 1.0), ("feel", 1.0)]),
    ("find", &[("find", 1.0), ("found", 1.0), ("consider", 1.0)]),
    ("person", &[("sister", 1.0), ("brother", 1.0), ("wife", 1.0), ("husband", 1.0), ("neighbour", 1.0), ("boss", 1.0)]),
    ("when", &[("so far", 1.0), ("every day", 1.0), ("in daily use", 1.0), ("at home", 1.0), ("on the road", 1.0)]),
];

/// The shapes of a clause. `{x}`: a phrase of class x; `{x?}`: one or none; `~word`: a word that negates.
/// `{topic}` is the thing or one of its aspects, `{whole}` the thing, `{aspect}` an aspect. Common shapes come first and are
/// drawn more often.
pub(super) const PATTERNS: &[(&str, f64)] = &[
    ("{topic} {copula} {degree?} {quality}", 8.0),
    ("{topic} {copula} {degree?} {quality} {when}", 2.0),
    ("{topic} {~isnt} {degree?} {quality}", 1.0),
    ("{topic} does ~not {seem} {degree?} {quality}", 0.5),
    ("{topic} turned out {degree?} {quality}", 1.0),
    ("{topic} {copula} {verdict}", 2.0),
    ("{topic} {~isnt} {verdict}", 0.3),
    ("I {surely?} {feel} {topic}", 3.0),
    ("I do ~not {feel} {topic}", 0.3),
    ("I ~don't {feel} {topic}", 0.3),
    ("I ~never {feel} {topic}", 0.2),
    ("I {regard} {topic}", 1.5),
    ("my {person} {feels} {topic}", 1.5),
    ("my {person} does ~not {feel} {topic}", 0.3),
    ("my {person} has come to {feel} {topic}", 0.5),
    ("everyone here {feels} {topic}", 0.7),
    ("~nobody here {feels} {topic}", 0.3),
    ("I {find} {topic} {degree?} {quality}", 2.0),
    ("I do ~not find {topic} {degree?} {quality}", 0.2),
    ("my {person} calls {topic} {degree?} {quality}", 0.7),
    ("~nobody would call {topic} {quality}", 0.2),
    ("you could call {topic} {degree?} {quality}", 0.4),
    ("I am {degree?} {state} with {topic}", 1.5),
    ("I am ~not {degree?} {state} with {topic}", 0.3),
    ("my {person} is {degree?} {state} with {topic}", 0.7),
    ("{topic} makes me {degree?} {state}", 0.7),
    ("{topic} left us {degree?} {state}", 0.7),
    ("{whole} works {degree?} {manner}", 1.5),
    ("{whole} works {manner} {when}", 0.5),
    ("{whole} does ~not work {manner}", 0.3),
    ("{whole} has worked {manner} so far", 0.5),
    ("it {event}", 1.5),
    ("this one {event}", 0.5),
    ("I would {surely?} {buy}", 1.0),
    ("I would ~not {buy}", 0.7),
    ("I would ~never {buy}", 0.5),
    ("{topic} {predicate}", 2.0),
    ("{part} is {aspect}", 1.5),
    ("{aspect} is {part}", 0.7),
    ("there is ~nothing {quality} about {topic}", 0.2),
    ("there is something {quality} about {topic}", 0.6),
];
