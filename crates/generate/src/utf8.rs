/// Turns pieces of bytes, cut anywhere, into text of whole characters.
///
/// Bytes of a character that is not complete are held back; bytes that cannot become one turn into U+FFFD at once. All
/// pieces together are what `String::from_utf8_lossy` makes of all bytes together.
#[derive(Clone, Debug, Default)]
pub struct Utf8Stream {
    held: Vec<u8>,
}

impl Utf8Stream {
    /// Adds bytes and takes the text that is complete.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        self.held.extend_from_slice(bytes);
        let mut out = String::new();
        let mut rest = self.held.as_slice();
        loop {
            let error = match std::str::from_utf8(rest) {
                Ok(text) => {
                    out.push_str(text);
                    rest = &[];
                    break;
                }
                Err(error) => error,
            };
            let (good, bad) = rest.split_at(error.valid_up_to());
            out.push_str(&String::from_utf8_lossy(good));
            match error.error_len() {
                Some(n) => {
                    out.push('\u{fffd}');
                    rest = &bad[n..];
                }
                None => {
                    rest = bad;
                    break;
                }
            }
        }
        self.held = rest.to_vec();
        out
    }

    /// What is left at the end: nothing, or U+FFFD for a character that was cut off.
    pub fn finish(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.held)).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use imaginal_nn::Rng;

    #[test]
    fn any_cutting_gives_what_the_whole_gives() {
        let mut rng = Rng::new(7);
        let texts: Vec<Vec<u8>> = vec![
            "a é 🚀 – 日本語 👩\u{200d}👩\u{200d}👧".as_bytes().to_vec(),
            vec![0x61, 0xff, 0xc3, 0x28, 0xf0, 0x9f, 0x92, 0xe2, 0x82, 0xac, 0xf0, 0x9f],
            vec![0xed, 0xa0, 0x80, 0xc0, 0xaf, 0xf5, 0x80, 0xe0],
            (0..400).map(|_| rng.next_u64() as u8).collect(),
        ];
        for bytes in texts {
            for _ in 0..50 {
                let mut stream = Utf8Stream::default();
                let (mut out, mut at) = (String::new(), 0);
                while at < bytes.len() {
                    let n = (1 + rng.next_u64() as usize % 4).min(bytes.len() - at);
                    out.push_str(&stream.push(&bytes[at..at + n]));
                    at += n;
                }
                out.push_str(&stream.finish());
                assert_eq!(out, String::from_utf8_lossy(&bytes));
            }
        }
    }

    #[test]
    fn a_character_comes_when_it_is_whole() {
        let mut stream = Utf8Stream::default();
        let rocket = "🚀".as_bytes();
        assert_eq!(stream.push(&rocket[..1]), "");
        assert_eq!(stream.push(&rocket[1..3]), "");
        assert_eq!(stream.push(&rocket[3..]), "🚀");
        assert_eq!(stream.push(&rocket[..2]), "");
        assert_eq!(stream.finish(), "\u{fffd}");
        assert_eq!(stream.finish(), "");
    }
}
