/// Watches text for strings that end it, and holds back what may turn out to be the beginning of one.
#[derive(Clone, Debug, Default)]
pub struct StopStrings {
    strings: Vec<String>,
    held: String,
}

impl StopStrings {
    /// Watches for these; empty ones are ignored.
    pub fn new(strings: &[String]) -> Self {
        StopStrings { strings: strings.iter().filter(|s| !s.is_empty()).cloned().collect(), held: String::new() }
    }

    /// Adds text. Returns what can no longer belong to a stop string, and the stop string if one is complete; the text
    /// returned ends before it then, and what comes after it is dropped.
    pub fn push(&mut self, text: &str) -> (String, Option<String>) {
        self.held.push_str(text);
        let found = self.strings.iter().filter_map(|s| Some((self.held.find(s.as_str())?, s)));
        // The one that begins first, and of several that begin together the longest.
        if let Some((at, stop)) = found.min_by_key(|(at, s)| (*at, usize::MAX - s.len())) {
            let stop = stop.clone();
            self.held.truncate(at);
            return (std::mem::take(&mut self.held), Some(stop));
        }
        let keep = self.strings.iter().map(|s| beginning_at_end(&self.held, s)).max().unwrap_or(0);
        let tail = self.held.split_off(self.held.len() - keep);
        (std::mem::replace(&mut self.held, tail), None)
    }

    /// What was held back, when no more text comes.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

/// Length of the longest proper beginning of `stop` that `text` ends with.
fn beginning_at_end(text: &str, stop: &str) -> usize {
    let ends = stop.char_indices().map(|(i, _)| i).skip(1).filter(|&n| n <= text.len());
    ends.filter(|&n| text.as_bytes().ends_with(&stop.as_bytes()[..n])).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stops(list: &[&str]) -> StopStrings {
        StopStrings::new(&list.iter().map(|s| s.to_string()).collect::<Vec<_>>())
    }

    #[test]
    fn text_is_held_back_only_while_it_may_be_a_stop() {
        let mut s = stops(&["</end>", "aab"]);
        assert_eq!(s.push("x</e"), ("x".into(), None));
        assert_eq!(s.push("x"), ("</ex".into(), None));
        assert_eq!(s.push("aa"), (String::new(), None));
        assert_eq!(s.push("a"), ("a".into(), None));
        assert_eq!(s.push("bcd"), (String::new(), Some("aab".into())));
        assert_eq!(stops(&["ab"]).push("xaby"), ("x".into(), Some("ab".into())));
    }

    #[test]
    fn the_first_stop_wins_and_the_longest_of_those_that_begin_together() {
        assert_eq!(stops(&["b", "a"]).push("xab"), ("x".into(), Some("a".into())));
        assert_eq!(stops(&["a", "ab"]).push("xab"), ("x".into(), Some("ab".into())));
        assert_eq!(stops(&[""]).push("abc"), ("abc".into(), None));
        let mut s = stops(&["日本"]);
        assert_eq!(s.push("x日"), ("x".into(), None));
        assert_eq!(s.finish(), "日");
    }

    #[test]
    fn any_cutting_gives_the_same_text() {
        let text = "aabaaabab abba </en </end> more";
        let mut rng = imaginal_nn::Rng::new(3);
        for list in [&["abab"][..], &["</end>", "bb"], &["zzz", " m"]] {
            let whole = stops(list).push(text);
            for _ in 0..100 {
                let (mut s, mut out, mut at, mut hit) = (stops(list), String::new(), 0, None);
                while at < text.len() && hit.is_none() {
                    let n = (1 + rng.next_u64() as usize % 5).min(text.len() - at);
                    let (part, stop) = s.push(&text[at..at + n]);
                    out.push_str(&part);
                    hit = stop;
                    at += n;
                }
                if hit.is_none() {
                    out.push_str(&s.finish());
                }
                let expected = if whole.1.is_some() { whole.0.as_str() } else { text };
                assert_eq!((out.as_str(), &hit), (expected, &whole.1), "{list:?}");
            }
        }
    }
}
