use std::cell::Cell;

use imaginal_tensor::Device;

use super::*;

/// A model that counts: after token `t` comes `t + 1`, and its state is the sum of what it has seen.
struct Counter {
    vocab: usize,
    context: Option<usize>,
    fed: Cell<usize>,
    /// States go back to multiples of this only.
    spacing: usize,
}

#[derive(Clone)]
struct Seen {
    tokens: Vec<u32>,
    spacing: usize,
}

impl State for Seen {
    fn len(&self) -> usize {
        self.tokens.len()
    }
    fn rewind_point(&self, n: usize) -> usize {
        if n >= self.len() { self.len() } else { n / self.spacing * self.spacing }
    }
    fn rewind(&mut self, n: usize) -> imaginal_nn::Result<()> {
        assert_eq!(self.rewind_point(n), n);
        self.tokens.truncate(n);
        Ok(())
    }
    fn mark(&mut self) {}
    fn save(&self, _: &mut Vec<u8>) -> imaginal_nn::Result<()> {
        Ok(())
    }
    fn restore(&mut self, _: &mut &[u8]) -> imaginal_nn::Result<()> {
        Ok(())
    }
    fn bytes(&self) -> usize {
        0
    }
}

impl LanguageModel for Counter {
    type State = Seen;
    fn vocab(&self) -> usize {
        self.vocab
    }
    fn context(&self) -> Option<usize> {
        self.context
    }
    fn state(&self) -> imaginal_models::Result<Seen> {
        Ok(Seen { tokens: Vec::new(), spacing: self.spacing })
    }
    fn next(&self, tokens: &[u32], state: &mut Seen) -> imaginal_models::Result<Tensor> {
        state.tokens.extend_from_slice(tokens);
        self.fed.set(self.fed.get() + tokens.len());
        let last = tokens[tokens.len() - 1] as usize;
        let logits = (0..self.vocab).map(|i| if i == (last + 1) % self.vocab { 5f32 } else { 0.0 });
        Ok(Tensor::from_vec(logits.collect(), self.vocab, &Device::Cpu)?)
    }
}

fn counter() -> Counter {
    Counter { vocab: 256, context: None, fed: Cell::new(0), spacing: 1 }
}

/// A token is the byte of its number; 250 is special and 251 ends the text.
struct Bytes(usize);

impl Vocabulary for Bytes {
    fn len(&self) -> usize {
        self.0
    }
    fn bytes(&self, id: u32) -> Vec<u8> {
        vec![id as u8]
    }
    fn is_end(&self, id: u32) -> bool {
        id == 251
    }
    fn is_special(&self, id: u32) -> bool {
        id == 250
    }
}

fn greedy(max_tokens: usize) -> GenerateOptions {
    GenerateOptions { max_tokens: Some(max_tokens), sampler: SamplerOptions::greedy(), ..GenerateOptions::default() }
}

#[test]
fn text_comes_token_by_token_after_the_prompt_in_chunks() {
    let model = counter();
    let mut session = Session::new(&model).unwrap();
    let options = GenerateOptions { chunk: 2, ..greedy(3) };
    let events: Vec<Event> = session
        .stream(b"12345".map(u32::from).as_slice(), Some(&Bytes(256)), options)
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert_eq!(events.len(), 7);
    assert_eq!(events[0], Event::Prompt { done: 2, total: 5 });
    assert_eq!(events[2], Event::Prompt { done: 5, total: 5 });
    assert_eq!(events[3], Event::Token { id: 54, text: "6".into() });
    let Event::End { text, summary } = &events[6] else { panic!() };
    assert_eq!((text.as_str(), &summary.finish), ("", &Finish::Length));
    assert_eq!((summary.prompt_tokens, summary.generated_tokens, summary.reused_tokens), (5, 3, 0));
    assert!(summary.prompt_time.is_some() && summary.generation_time.is_some());
    // The last token was chosen and not fed.
    assert_eq!(session.tokens(), b"1234567".map(u32::from));
    assert_eq!(model.fed.get(), 7);
}

#[test]
fn what_was_seen_is_not_fed_again() {
    for spacing in [1, 4] {
        let model = Counter { spacing, ..counter() };
        let mut session = Session::new(&model).unwrap();
        session.generate(&[1, 2, 3, 4, 5, 6], None, greedy(4)).unwrap();
        let before = model.fed.get();
        let (_, ids, summary) = session.generate(&[1, 2, 3, 4, 5, 6, 7, 8, 100, 101], None, greedy(2)).unwrap();
        assert_eq!(ids, [102, 103]);
        assert_eq!(summary.reused_tokens, 8);
        assert_eq!(model.fed.get() - before, 3);
        // The same prompt again: all but its last token is known.
        let (_, ids, summary) = session.generate(&[1, 2, 3], None, greedy(1)).unwrap();
        assert_eq!((ids.as_slice(), summary.reused_tokens), (&[4][..], 2 / spacing * spacing));
    }
}

#[test]
fn a_session_goes_back_and_divides() {
    let model = Counter { spacing: 4, ..counter() };
    let mut session = Session::new(&model).unwrap();
    session.feed(&[1, 2, 3, 4, 5, 6, 7], 3).unwrap();
    let mut other = session.fork();
    session.rewind(6).unwrap();
    assert_eq!(session.tokens(), [1, 2, 3, 4, 5, 6]);
    assert_eq!(session.state.tokens, [1, 2, 3, 4, 5, 6]);
    other.feed(&[9], 1).unwrap();
    assert_eq!(other.tokens(), [1, 2, 3, 4, 5, 6, 7, 9]);
    assert!(session.rewind(7).is_err());
}

#[test]
fn ends_stops_and_special_tokens() {
    let model = counter();
    let run = |prompt: u32, options: GenerateOptions| {
        let mut session = Session::new(&model).unwrap();
        let (text, _, summary) = session.generate(&[prompt], Some(&Bytes(256)), options).unwrap();
        (text, summary)
    };
    // 249, then 250 (special: not shown), then 251 ends. 249 is no UTF-8.
    let (text, summary) = run(248, greedy(100));
    assert_eq!((text.as_str(), summary.finish), ("\u{fffd}", Finish::End(251)));
    assert_eq!(summary.generated_tokens, 2);
    let (_, summary) = run(248, GenerateOptions { ignore_end: true, ..greedy(100) });
    assert_eq!(summary.finish, Finish::Length);
    let stop = |s: &str| GenerateOptions { stop: vec![s.into()], ..greedy(100) };
    let (text, summary) = run('a' as u32, stop("ef"));
    assert_eq!((text.as_str(), summary.finish), ("bcd", Finish::Stop("ef".into())));
    // Held back as the beginning of a stop string, given out at the end.
    let (text, _) = run('a' as u32, GenerateOptions { max_tokens: Some(4), ..stop("efg") });
    assert_eq!(text, "bcde");
}

#[test]
fn context_cancel_and_small_vocabularies() {
    let model = Counter { context: Some(6), ..counter() };
    let mut session = Session::new(&model).unwrap();
    let (_, ids, summary) = session.generate(&[1, 2, 3], None, greedy(100)).unwrap();
    assert_eq!((ids.as_slice(), summary.finish), (&[4, 5, 6][..], Finish::Context));
    assert!(matches!(session.generate(&[1; 6], None, greedy(1)), Err(Error::PromptTooLong { .. })));
    assert!(matches!(session.generate(&[], None, greedy(1)), Err(Error::EmptyPrompt)));

    let options = greedy(100);
    let cancel = options.cancel.clone();
    let mut stream = session.stream(&[1, 2], None, options).unwrap();
    assert!(matches!(stream.next(), Some(Ok(Event::Prompt { .. }))));
    assert!(matches!(stream.next(), Some(Ok(Event::Token { id: 3, .. }))));
    cancel.cancel();
    assert!(matches!(stream.next(), Some(Ok(Event::End { summary, .. })) if summary.finish == Finish::Cancelled));
    assert!(stream.next().is_none());

    // The model would say 66, which the tokenizer does not have.
    let model = counter();
    let mut session = Session::new(&model).unwrap();
    let (_, ids, _) = session.generate(&[65], Some(&Bytes(66)), greedy(1)).unwrap();
    assert_eq!(ids, [0]);
}
