//! Ranking by words: BM25 over the memories of one subject, computed on demand.
//!
//! A subject has few memories and they are short, so nothing is indexed: counting the words of a thousand of them takes
//! about a millisecond. The document frequency of a word is counted over these memories alone.

use std::collections::HashMap;

/// The usual BM25 parameters: how soon repetitions of a word count for less, and how much a long text counts for less.
const SATURATION: f32 = 1.2;
const LENGTH: f32 = 0.75;
/// Softens the difference between ranks when two rankings are joined, as is usual.
const RANK_OFFSET: f32 = 60.0;

/// Words without meaning for a search.
const STOP_WORDS: [&str; 60] = [
    "a", "about", "am", "an", "and", "any", "are", "as", "at", "be", "been", "but", "by", "can", "did", "do", "does",
    "for", "from", "has", "have", "her", "his", "how", "i", "if", "in", "is", "it", "me", "my", "no", "not", "of",
    "on", "or", "our", "she", "should", "so", "that", "the", "their", "them", "they", "this", "to", "us", "was", "we",
    "what", "when", "where", "which", "who", "will", "with", "would", "you", "your",
];

/// A text's words as they are compared: lower case, without grammatical endings.
pub fn words(text: &str) -> Vec<String> {
    text.split(|c: char| !c.is_alphanumeric() && c != '\'' && c != '\u{2019}')
        .map(|word| word.trim_matches(['\'', '\u{2019}']).to_lowercase())
        .filter(|word| !word.is_empty() && STOP_WORDS.binary_search(&word.as_str()).is_err())
        .map(|word| stem(&word).to_owned())
        .collect()
}

/// The stem of an English word, roughly; a word of another language loses at most an ending, on both sides of the
/// comparison.
fn stem(word: &str) -> &str {
    let long_enough = |rest: &&str| rest.chars().count() >= 3;
    for ending in ["'s", "\u{2019}s", "ingly", "ings", "ing", "ies", "edly", "ied", "ed", "es", "s", "y", "e"] {
        if let Some(rest) = word.strip_suffix(ending).filter(long_enough)
            && !(ending == "s" && rest.ends_with('s'))
        {
            return rest;
        }
    }
    word
}

/// How well each text matches the query's words; 0: it contains none of them.
pub fn by_words<'a>(query: &str, texts: impl Iterator<Item = &'a str>) -> Vec<f32> {
    let documents: Vec<HashMap<String, u32>> = texts.map(counted).collect();
    let lengths: Vec<f32> = documents.iter().map(|document| document.values().sum::<u32>() as f32).collect();
    let average = lengths.iter().sum::<f32>() / documents.len().max(1) as f32;
    let mut terms = words(query);
    terms.sort_unstable();
    terms.dedup();
    let total = documents.len() as f32;
    let mut scores = vec![0.0; documents.len()];
    for word in &terms {
        let having = documents.iter().filter(|document| document.contains_key(word)).count() as f32;
        let rarity = (1.0 + (total - having + 0.5) / (having + 0.5)).ln();
        for ((document, length), score) in documents.iter().zip(&lengths).zip(&mut scores) {
            let Some(times) = document.get(word).map(|times| *times as f32) else { continue };
            let relative = if average > 0.0 { length / average } else { 1.0 };
            let weighed = times * (SATURATION + 1.0) / (times + SATURATION * (1.0 - LENGTH + LENGTH * relative));
            *score += rarity * weighed;
        }
    }
    scores
}

fn counted(text: &str) -> HashMap<String, u32> {
    let mut counted = HashMap::new();
    for word in words(text) {
        *counted.entry(word).or_insert(0) += 1;
    }
    counted
}

/// The similarity of two vectors, from -1 to 1; 0 if they cannot be compared.
#[must_use]
pub(crate) fn likeness(one: &[f32], other: &[f32]) -> f32 {
    if one.len() != other.len() {
        return 0.0;
    }
    let dot: f32 = one.iter().zip(other).map(|(a, b)| a * b).sum();
    let length = |vector: &[f32]| vector.iter().map(|x| x * x).sum::<f32>().sqrt();
    let lengths = length(one) * length(other);
    if lengths > 0.0 { dot / lengths } else { 0.0 }
}

/// Joins rankings of the same things (reciprocal rank fusion). A thing with 0 or less in a ranking has no rank there; a
/// thing without any rank is left out. Best first, equals in their order.
pub fn joined(rankings: &[Vec<f32>]) -> Vec<(usize, f32)> {
    let things = rankings.iter().map(Vec::len).max().unwrap_or_default();
    let mut scores = vec![0.0_f32; things];
    for ranking in rankings {
        let mut order: Vec<usize> = (0..ranking.len()).filter(|thing| ranking[*thing] > 0.0).collect();
        order.sort_by(|a, b| ranking[*b].total_cmp(&ranking[*a]));
        for (rank, thing) in order.into_iter().enumerate() {
            scores[thing] += 1.0 / (RANK_OFFSET + rank as f32 + 1.0);
        }
    }
    let mut ranked: Vec<_> = scores.into_iter().enumerate().filter(|(_, score)| *score > 0.0).collect();
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
    ranked
}

#[cfg(test)]
mod tests {
    use super::*;

    fn best<'a>(query: &str, texts: &[&'a str]) -> Vec<&'a str> {
        let scores = by_words(query, texts.iter().copied());
        joined(&[scores]).into_iter().map(|(thing, _)| texts[thing]).collect()
    }

    #[test]
    fn stop_words_are_in_order_for_their_search() {
        assert!(STOP_WORDS.is_sorted());
    }

    #[test]
    fn memories_that_share_rarer_words_rank_first_and_others_are_left_out() {
        let texts = ["I live in Porto", "My dog is called Rex", "I like long walks with my dog", "I hate olives"];
        assert_eq!(best("Where does she live?", &texts), ["I live in Porto"]);
        assert_eq!(best("what is the dog called", &texts), ["My dog is called Rex", "I like long walks with my dog"]);
        assert_eq!(best("quantum physics", &texts), [""; 0]);
        assert_eq!(best("", &texts), [""; 0]);
        assert_eq!(best("dog", &[]), [""; 0]);
    }

    #[test]
    fn forms_of_a_word_are_one_word() {
        for (query, text) in [
            ("allergies", "I am allergic, an allergy to nuts"),
            ("walking dogs", "a dog walks"),
            ("hobby", "Hobbies: chess"),
            ("Ana\u{2019}s", "ana"),
            ("\u{c9}cole", "\u{e9}coles"),
        ] {
            assert_eq!(best(query, &[text]), [text], "{query}");
        }
        assert!(words("glass").contains(&"glass".to_owned()));
    }

    #[test]
    fn a_place_in_two_rankings_is_better_than_one() {
        let ranked = joined(&[vec![0.9, 0.5, 0.0, 0.0], vec![0.0, 0.2, 0.9, -1.0]]);
        assert_eq!(ranked.iter().map(|(thing, _)| *thing).collect::<Vec<_>>(), [1, 0, 2]);
    }

    #[test]
    fn likeness_is_the_angle_and_nothing_where_there_is_none() {
        assert!((likeness(&[1.0, 1.0], &[2.0, 2.0]) - 1.0).abs() < 1e-6);
        assert!((likeness(&[1.0, 0.0], &[-3.0, 0.0]) + 1.0).abs() < 1e-6);
        assert_eq!(likeness(&[1.0], &[1.0, 0.0]), 0.0);
        assert_eq!(likeness(&[0.0, 0.0], &[1.0, 0.0]), 0.0);
    }
}
