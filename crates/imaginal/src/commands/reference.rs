use std::path::PathBuf;

use clap::{CommandFactory, Parser};

use crate::cli::{Cli, Failure};

/// Shell completions and man pages, from the one definition of the command line.
#[derive(Parser, Debug)]
pub struct Generate {
    /// Print the completion script of this shell
    #[arg(long, value_name = "SHELL", required_unless_present = "man")]
    completions: Option<clap_complete::Shell>,
    /// Write a man page per verb into this directory
    #[arg(long, value_name = "DIR")]
    man: Option<PathBuf>,
}

impl Generate {
    /// Runs the verb.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn run(&self) -> Result<(), Failure> {
        if let Some(shell) = self.completions {
            clap_complete::generate(shell, &mut Cli::command(), "imaginal", &mut std::io::stdout());
        }
        if let Some(dir) = &self.man {
            std::fs::create_dir_all(dir)?;
            clap_mangen::generate_to(Cli::command(), dir)?;
        }
        Ok(())
    }
}
