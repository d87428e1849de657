//! The forms of English verbs and nouns, as lists of a pack generate them.

/// Which form of its word an entry of a list is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Form {
    /// Written as it stands; every selection takes it.
    Fixed,
    /// A verb or noun itself.
    Base,
    /// A verb with -s.
    Third,
    /// A verb in the past, or its participle.
    Past,
    /// A verb with -ing.
    Ing,
    /// A noun in the plural.
    Plural,
}

impl Form {
    /// Read what a slot writes behind the name of a list.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "base" => Self::Base,
            "s" => Self::Third,
            "past" => Self::Past,
            "ing" => Self::Ing,
            "plural" => Self::Plural,
            _ => return None,
        })
    }

    /// Return the word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Fixed => "fixed",
            Self::Base => "base",
            Self::Third => "s",
            Self::Past => "past",
            Self::Ing => "ing",
            Self::Plural => "plural",
        }
    }
}

/// Verbs whose past forms follow no rule.
#[rustfmt::skip]
const PAST: &[(&str, &[&str])] = &[
    ("beat", &["beat", "beaten"]), ("begin", &["began", "begun"]), ("bind", &["bound"]), ("bite", &["bit", "bitten"]),
    ("bleed", &["bled"]), ("blow", &["blew", "blown"]), ("break", &["broke", "broken"]), ("breed", &["bred"]),
    ("bring", &["brought"]), ("build", &["built"]), ("burn", &["burned", "burnt"]), ("buy", &["bought"]),
    ("catch", &["caught"]), ("choose", &["chose", "chosen"]), ("come", &["came", "come"]), ("cut", &["cut"]),
    ("deal", &["dealt"]), ("dig", &["dug"]), ("do", &["did", "done"]), ("drive", &["drove", "driven"]),
    ("eat", &["ate", "eaten"]), ("fall", &["fell", "fallen"]), ("feed", &["fed"]), ("feel", &["felt"]),
    ("fight", &["fought"]), ("find", &["found"]), ("flee", &["fled"]), ("fly", &["flew", "flown"]),
    ("forget", &["forgot", "forgotten"]), ("get", &["got", "gotten"]), ("give", &["gave", "given"]),
    ("go", &["went", "gone"]), ("grow", &["grew", "grown"]), ("hang", &["hung", "hanged"]), ("have", &["had"]),
    ("hide", &["hid", "hidden"]), ("hit", &["hit"]), ("hold", &["held"]), ("hurt", &["hurt"]), ("keep", &["kept"]),
    ("know", &["knew", "known"]), ("lay", &["laid"]), ("lead", &["led"]), ("leave", &["left"]), ("let", &["let"]),
    ("lie", &["lied"]), ("light", &["lit", "lighted"]), ("lose", &["lost"]), ("make", &["made"]),
    ("overthrow", &["overthrew", "overthrown"]), ("pay", &["paid"]), ("put", &["put"]), ("read", &["read"]),
    ("ride", &["rode", "ridden"]), ("rise", &["rose", "risen"]), ("run", &["ran", "run"]), ("say", &["said"]),
    ("see", &["saw", "seen"]), ("seek", &["sought"]), ("sell", &["sold"]), ("send", &["sent"]), ("set", &["set"]),
    ("shake", &["shook", "shaken"]), ("shoot", &["shot"]), ("shut", &["shut"]), ("slay", &["slew", "slain"]),
    ("sleep", &["slept"]), ("slit", &["slit"]), ("sneak", &["sneaked", "snuck"]), ("speak", &["spoke", "spoken"]),
    ("spend", &["spent"]), ("spread", &["spread"]), ("steal", &["stole", "stolen"]), ("stick", &["stuck"]),
    ("strike", &["struck", "stricken"]), ("swear", &["swore", "sworn"]), ("take", &["took", "taken"]),
    ("teach", &["taught"]), ("tear", &["tore", "torn"]), ("tell", &["told"]), ("think", &["thought"]),
    ("throw", &["threw", "thrown"]), ("understand", &["understood"]), ("wear", &["wore", "worn"]),
    ("write", &["wrote", "written"]),
];

/// Verbs of more than one syllable whose last letter is doubled.
const DOUBLED: &[&str] = &[
    "admit", "begin", "commit", "compel", "control", "defer", "equip", "forget", "kidnap",
    "permit", "program", "propel", "rebel", "refer", "regret", "submit", "transfer", "transmit",
    "unplug",
];

#[rustfmt::skip]
const PLURALS: &[(&str, &str)] = &[
    ("child", "children"), ("foot", "feet"), ("grandchild", "grandchildren"), ("half", "halves"), ("knife", "knives"),
    ("leaf", "leaves"), ("life", "lives"), ("loaf", "loaves"), ("mouse", "mice"), ("person", "people"),
    ("policeman", "policemen"), ("shelf", "shelves"), ("thief", "thieves"), ("tooth", "teeth"), ("wife", "wives"),
    ("wolf", "wolves"), ("potato", "potatoes"), ("tomato", "tomatoes"), ("hero", "heroes"), ("virus", "viruses"),
];

fn is_vowel(char: char) -> bool {
    matches!(char, 'a' | 'e' | 'i' | 'o' | 'u')
}

fn hisses(word: &str) -> bool {
    ["s", "x", "z", "ch", "sh"]
        .iter()
        .any(|end| word.ends_with(end))
}

/// The word without its `y`, if that becomes `i`.
fn without_y(word: &str) -> Option<&str> {
    word.strip_suffix('y')
        .filter(|stem| stem.chars().next_back().is_some_and(|char| !is_vowel(char)))
}

/// Whether the last letter is doubled before a vowel: `stab`, but not `steal`, `shoplift` or `mix`.
fn doubles(word: &str) -> bool {
    let letters: Vec<char> = word.chars().collect();
    let [.., before, vowel, last] = letters[..] else {
        return false;
    };
    let vowels = |place: usize| {
        is_vowel(letters[place])
            && !(letters[place] == 'u' && place > 0 && letters[place - 1] == 'q')
    };
    let groups = (0..letters.len())
        .filter(|&place| vowels(place) && !(place > 0 && vowels(place - 1)))
        .count();
    let short = is_vowel(vowel)
        && !is_vowel(last)
        && (!is_vowel(before)
            || (before == 'u' && letters.len() > 3 && letters[letters.len() - 4] == 'q'))
        && !matches!(last, 'w' | 'x' | 'y');
    short && (groups == 1 || DOUBLED.contains(&word))
}

/// A verb with all its forms; of a phrase the first word is inflected.
#[must_use]
pub(super) fn verb(phrase: &str) -> Vec<(String, Form)> {
    let (word, rest) = phrase
        .split_once(' ')
        .map_or((phrase, ""), |(word, rest)| (word, rest));
    let rest = if rest.is_empty() {
        String::new()
    } else {
        format!(" {rest}")
    };
    let mut forms = vec![(format!("{word}{rest}"), Form::Base)];
    let third = match (word, without_y(word)) {
        ("have", _) => "has".to_owned(),
        (_, Some(stem)) => format!("{stem}ies"),
        _ if hisses(word) || word.ends_with('o') => format!("{word}es"),
        _ => format!("{word}s"),
    };
    forms.push((format!("{third}{rest}"), Form::Third));
    let last = word.chars().next_back().unwrap_or('e');
    let stem = if doubles(word) {
        format!("{word}{last}")
    } else if word.ends_with("ic") {
        format!("{word}k")
    } else {
        word.to_owned()
    };
    // `gaslight` has `gaslit` as `light` has `lit`; a prefix does not change how a verb is inflected.
    let irregular = PAST.iter().find(|(base, _)| *base == word);
    if let Some((_, pasts)) = irregular {
        forms.extend(
            pasts
                .iter()
                .map(|past| (format!("{past}{rest}"), Form::Past)),
        );
    } else {
        let past = match without_y(word) {
            Some(stem) => format!("{stem}ied"),
            None if word.ends_with('e') => format!("{word}d"),
            None => format!("{stem}ed"),
        };
        forms.push((format!("{past}{rest}"), Form::Past));
    }
    let ing = if let Some(stem) = word.strip_suffix("ie") {
        format!("{stem}ying")
    } else if word.ends_with('e') && !["ee", "oe", "ye"].iter().any(|end| word.ends_with(end)) {
        format!("{}ing", &word[..word.len() - 1])
    } else {
        format!("{stem}ing")
    };
    forms.push((format!("{ing}{rest}"), Form::Ing));
    forms
}

/// A noun and its plural; of a phrase the last word is inflected.
#[must_use]
pub(super) fn noun(phrase: &str) -> Vec<(String, Form)> {
    let at = phrase.rfind(' ').map_or(0, |at| at + 1);
    let (head, word) = phrase.split_at(at);
    let plural = if let Some((_, plural)) = PLURALS.iter().find(|(base, _)| *base == word) {
        (*plural).to_owned()
    } else if let Some(stem) = word.strip_suffix("man") {
        format!("{stem}men")
    } else if let Some(stem) = without_y(word) {
        format!("{stem}ies")
    } else if hisses(word) {
        format!("{word}es")
    } else {
        format!("{word}s")
    };
    vec![
        (phrase.to_owned(), Form::Base),
        (format!("{head}{plural}"), Form::Plural),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(forms: &[(String, Form)]) -> String {
        forms
            .iter()
            .map(|(form, _)| form.as_str())
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn verbs_have_the_forms_that_a_dictionary_has() {
        for (base, forms) in [
            ("kill", "kill kills killed killing"),
            ("stab", "stab stabs stabbed stabbing"),
            ("rob", "rob robs robbed robbing"),
            ("forge", "forge forges forged forging"),
            ("carry", "carry carries carried carrying"),
            ("destroy", "destroy destroys destroyed destroying"),
            ("hack", "hack hacks hacked hacking"),
            ("crash", "crash crashes crashed crashing"),
            ("fix", "fix fixes fixed fixing"),
            ("steal", "steal steals stole stolen stealing"),
            ("traffic", "traffic traffics trafficked trafficking"),
            ("kidnap", "kidnap kidnaps kidnapped kidnapping"),
            ("poison", "poison poisons poisoned poisoning"),
            ("tie", "tie ties tied tying"),
            ("flee", "flee flees fled fleeing"),
            ("go", "go goes went gone going"),
            ("quit", "quit quits quitted quitting"),
            ("equip", "equip equips equipped equipping"),
            ("blow", "blow blows blew blown blowing"),
            ("beat up", "beat up beats up beat up beaten up beating up"),
        ] {
            assert_eq!(written(&verb(base)), forms);
        }
    }

    #[test]
    fn nouns_have_the_plural_that_a_dictionary_has() {
        for (base, plural) in [
            ("bomb", "bombs"),
            ("baby", "babies"),
            ("boy", "boys"),
            ("boss", "bosses"),
            ("knife", "knives"),
            ("woman", "women"),
            ("child", "children"),
            ("credit card", "credit cards"),
            ("box", "boxes"),
        ] {
            assert_eq!(noun(base)[1].0, plural);
        }
    }
}
