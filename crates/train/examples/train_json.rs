//! Runs the options in a JSON file.
struct Lines;
impl imaginal_train::Observer for Lines {
    fn event(&mut self, event: imaginal_train::Event<'_>) {
        match event {
            imaginal_train::Event::Metric(m) if m.step % 20 == 0 || m.held_out_loss.is_some() => eprintln!("{m:?}"),
            imaginal_train::Event::Metric(_) => {}
            other => eprintln!("{other:?}"),
        }
    }
}
fn main() {
    let arg = std::env::args().nth(1).unwrap();
    let path = std::path::Path::new(&arg);
    let report = if path.is_dir() {
        imaginal_train::resume(path, std::env::args().nth(2).map(|s| s.parse().unwrap()), &mut Lines)
    } else {
        imaginal_train::run(serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap(), &mut Lines)
    };
    match report {
        Ok(r) => eprintln!("{r:?}"),
        Err(e) => eprintln!("error: {e}"),
    }
}
