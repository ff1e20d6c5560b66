//! `sim corpus`: what once failed must not fail again.

use std::path::PathBuf;

use clap::Args;

use super::{UsageError, Verdict, tell};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The folder of entries
    #[arg(default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/corpus"))]
    folder: PathBuf,
}

pub(crate) fn run(arguments: &Arguments) -> Result<Verdict, UsageError> {
    let mut verdict = Verdict::Clean;
    for (name, entry) in sim::corpus::load(&arguments.folder)? {
        let run = sim::sweep::run_plan(&entry.plan);
        match &run.violation {
            None => tell::line(format_args!("{name}: passes"))?,
            Some(violation) => {
                let file = arguments.folder.join(&name).with_extension("toml");
                let source = tell::Source::File(&file, None);
                tell::line(tell::failure(&name, &entry.plan, violation, &source))?;
                verdict = Verdict::Failed;
            }
        }
    }
    Ok(verdict)
}
