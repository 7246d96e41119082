//! The option `--config`, and how the file that it names is loaded.

use std::io;
use std::path::PathBuf;

use jobgate_client::Terminal;

use crate::config::{Config, Environment, FILE_VARIABLE, ValidationErrors};

/// The option that every command with a configuration takes.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct ConfigFile {
    /// Configuration file; `JOBGATE_<SECTION>__<KEY>` overrides it [default: the file in `JOBGATE_CONFIG`, otherwise the
    /// built-in defaults]
    #[arg(long = "config", value_name = "FILE")]
    path: Option<PathBuf>,
}

impl ConfigFile {
    /// Loads the file, or prints its errors; `None` then.
    pub(super) fn load_or_refuse(
        &self,
        env: &Environment,
        terminal: &mut Terminal<'_>,
    ) -> io::Result<Option<Config>> {
        match self.load(env) {
            Ok(config) => Ok(Some(config)),
            Err(faults) => terminal.complain(&faults).map(|()| None),
        }
    }

    /// Loads the file that the option or the environment names.
    fn load(&self, env: &Environment) -> Result<Config, ValidationErrors> {
        Config::load(self.named(env).as_deref(), env)
    }

    /// The file that the option or the environment names.
    pub(super) fn named(&self, env: &Environment) -> Option<PathBuf> {
        let named = || env.get(FILE_VARIABLE).ok().filter(|path| !path.is_empty()).map(PathBuf::from);
        self.path.clone().or_else(named)
    }
}
