//! The live page in a real browser: `tests/clients/page.mjs` uses it, and has this process change the world meanwhile.

use std::path::Path;
use std::process::Stdio;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::Command;

/// A browser of the system.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Browser {
    Chromium,
    Firefox,
}

impl Browser {
    const fn name(self) -> &'static str {
        match self {
            Self::Chromium => "chromium",
            Self::Firefox => "firefox",
        }
    }

    const fn program(self) -> &'static str {
        match self {
            Self::Chromium => "/usr/bin/chromium",
            Self::Firefox => "/usr/bin/firefox-esr",
        }
    }

    /// Runs a scenario of `tests/clients/page` to its end. `act` does what it asks for, and answers. Returns what the
    /// scenario measured; fails with its message when the page is wrong.
    pub(crate) async fn run(
        self,
        scenario: &str,
        options: &Value,
        mut act: impl AsyncFnMut(&str, Value) -> Value,
    ) -> Value {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
        let module = folder.join("node_modules/puppeteer-core/package.json");
        for needed in [module.as_path(), Path::new(self.program())] {
            assert!(needed.exists(), "{} is missing: run tests/all.sh, which installs it", needed.display());
        }
        let mut command = Command::new("node");
        command.arg(folder.join("page.mjs")).args([scenario, self.name(), &options.to_string()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let mut answers = child.stdin.take().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut seen = Value::Null;
        while let Some(line) = lines.next_line().await.unwrap() {
            let mut line: Value = serde_json::from_str(&line).unwrap();
            if let Some(what) = line["ask"].as_str() {
                let answer = act(what, line["argument"].clone()).await;
                answers.write_all(format!("{answer}\n").as_bytes()).await.unwrap();
            } else {
                seen = line["seen"].take();
            }
        }
        assert!(
            child.wait().await.unwrap().success(),
            "{scenario} in {self:?}: the page is wrong, see above"
        );
        seen
    }
}
