//! The `imaginal` command.
fn main() {}
