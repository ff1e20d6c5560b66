//! `sim corpus`: runs the plans that failed once.

use std::path::PathBuf;

use clap::Args;

use super::{ExitStatus, UsageError, output};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The folder of the entries
    #[arg(default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/corpus"))]
    folder: PathBuf,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitStatus, UsageError> {
    let mut status = ExitStatus::Success;
    for (name, entry) in sim::corpus::load(&arguments.folder)? {
        let run = sim::sweep::run_plan(&entry.plan);
        match &run.violation {
            None => output::line(format_args!("{name}: passes"))?,
            Some(violation) => {
                let file = arguments.folder.join(&name).with_extension("toml");
                let source = output::Source::File(&file, None);
                output::line(output::failure(&name, &entry.plan, violation, &source))?;
                status = ExitStatus::Failure;
            }
        }
    }
    Ok(status)
}
