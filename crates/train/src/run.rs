//! A run from its options to the final model, or on from its last checkpoint.
//!
//! ```text
//! RUN/config.json       options, plan, and what it runs on
//! RUN/metrics.jsonl     a line per step, see [`crate::metrics::Metric`]
//! RUN/loss.png          the curve
//! RUN/checkpoints/      the last two and the best
//! RUN/data/             tokenizer and tokens
//! RUN/model.gguf        the final model
//! ```

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Instant;

use imaginal_models::{Config, Model, SaveOptions};
use imaginal_tensor::Device;
use serde::{Deserialize, Serialize};

use crate::checkpoint::{Best, Checkpoints, Progress};
use crate::data::corpus::Corpus;
use crate::data::pack::Packer;
use crate::eval::{Document, Evaluation, Score};
use crate::metrics::{Metric, Metrics};
use crate::observer::{Event, Observer, Report};
use crate::options::{Plan, TrainOptions};
use crate::prepare::{Prepared, prepare};
use crate::rng::SplitMix64;
use crate::trainer::{Batch, Optimizer, Trainer};
use crate::{Error, Result, curve};

/// What bits of a result depend on besides the options.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Environment {
    /// Version of this program.
    pub version: String,
    /// Threads computed with.
    pub threads: usize,
    /// Instruction set computed with.
    pub isa: String,
    /// Operating system and processor family.
    pub target: String,
}

impl Environment {
    /// What this process runs on.
    pub fn here() -> Environment {
        Environment {
            version: env!("CARGO_PKG_VERSION").into(),
            threads: imaginal_kernels::pool::threads(),
            isa: format!("{:?}", imaginal_kernels::isa::isa()).to_lowercase(),
            target: format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH),
        }
    }
}

/// config.json.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct RunConfig {
    options: TrainOptions,
    environment: Environment,
    /// Absent until the data has been read.
    plan: Option<Plan>,
}

/// The paths of a run.
struct RunDir {
    root: PathBuf,
}

impl RunDir {
    fn config(&self) -> PathBuf {
        self.root.join("config.json")
    }

    fn model(&self) -> PathBuf {
        self.root.join("model.gguf")
    }

    fn write_config(&self, config: &RunConfig) -> Result<()> {
        let text = serde_json::to_string_pretty(config).map_err(|e| Error::io("write", self.config())(e.into()))?;
        Ok(imaginal_files::write_atomic(self.config(), (text + "\n").as_bytes())?)
    }

    /// What config.json says. A run always goes by this, also when it has just written it: a number that is parsed may
    /// differ in its last bit from the one that was printed, and all starts of a run shall see the same.
    fn read_config(&self) -> Result<RunConfig> {
        let text = match std::fs::read_to_string(self.config()) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                let problem = "no run is here (there is no config.json); start one without --resume";
                return Err(Error::run_dir(&self.root, problem));
            }
            Err(e) => return Err(Error::io("read", self.config())(e)),
        };
        let mut config: RunConfig =
            serde_json::from_str(&text).map_err(|e| Error::run_dir(self.config(), e.to_string()))?;
        config.options.check()?;
        // The directory may have been moved.
        config.options.out = self.root.clone();
        Ok(config)
    }

    /// Keeps a second process out. The system gives the lock back when the process ends, however it ends.
    fn lock(&self) -> Result<File> {
        let path = self.root.join(".lock");
        let file = File::options().create(true).truncate(false).write(true).open(&path);
        let file = file.map_err(Error::io("create", &path))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(std::fs::TryLockError::WouldBlock) => {
                Err(Error::run_dir(&self.root, "another process is training here; wait for it or stop it"))
            }
            // A file system without locks: nothing can be known about other processes.
            Err(std::fs::TryLockError::Error(_)) => Ok(file),
        }
    }

    /// Removes what a killed process left half written.
    fn sweep(&self) -> Result<()> {
        for folder in [self.root.clone(), self.root.join("checkpoints"), self.root.join("data")] {
            let Ok(entries) = std::fs::read_dir(&folder) else { continue };
            for entry in entries {
                let path = entry.map_err(Error::io("read", &folder))?.path();
                let name = path.file_name().and_then(|n| n.to_str()).unwrap_or("");
                if name.starts_with('.') && name.ends_with(".tmp") {
                    std::fs::remove_file(&path).map_err(Error::io("remove", &path))?;
                }
            }
        }
        Ok(())
    }
}

/// Trains a model from the beginning.
///
/// # Errors
/// Wrong options, no data, a run directory that is in use or cannot be written, a loss that is not finite.
pub fn run(options: TrainOptions, observer: &mut dyn Observer) -> Result<Report> {
    options.check()?;
    let dir = RunDir { root: options.out.clone() };
    if dir.config().exists() {
        let problem = "a run is already here; continue it with --resume, or choose another directory with --out";
        return Err(Error::run_dir(&dir.root, problem));
    }
    std::fs::create_dir_all(&dir.root).map_err(Error::io("create", &dir.root))?;
    let lock = dir.lock()?;
    let mut options = options;
    for path in &mut options.data {
        // The run may be continued from another working directory.
        *path = std::fs::canonicalize(&*path).map_err(Error::io("read", &*path))?;
    }
    let config = RunConfig { options, environment: Environment::here(), plan: None };
    dir.write_config(&config)?;
    let report = go(&dir, None, observer);
    drop(lock);
    report
}

/// Continues a run where its last checkpoint stands, or from the beginning if there is none yet. With the same
/// threads and instruction set it ends in the same model, byte for byte, as if it had never been stopped.
///
/// `steps` makes the run longer or shorter, while its learning rate does not depend on its length yet (see
/// [`crate::schedule::Decay::Trapezoid`]).
///
/// # Errors
/// There is no run in the directory, it is in use or damaged, or too far for another number of steps; and as [`run`].
pub fn resume(root: &Path, steps: Option<u64>, observer: &mut dyn Observer) -> Result<Report> {
    let dir = RunDir { root: root.to_path_buf() };
    let config = dir.read_config()?;
    let lock = dir.lock()?;
    dir.sweep()?;
    let here = Environment::here();
    if here != config.environment {
        observer.event(Event::Warning(&format!(
            "the run was started with {:?} and goes on with {here:?}; its result will differ in the last bits from one \
             that was not interrupted",
            config.environment
        )));
    }
    let report = go(&dir, steps, observer);
    drop(lock);
    report
}

fn go(dir: &RunDir, steps: Option<u64>, observer: &mut dyn Observer) -> Result<Report> {
    let mut config = dir.read_config()?;
    let data = prepare(&dir.root.join("data"), &config.options, observer)?;
    if config.plan.is_none() {
        let vocab = data.tokenizer.vocab_size();
        let plan = Plan::new(&config.options, vocab, data.train.text_bytes(), data.train.tokens())?;
        dir.write_config(&RunConfig { plan: Some(plan), ..config })?;
        config = dir.read_config()?;
    }
    let no_plan = || Error::run_dir(dir.config(), "has no plan; delete the run and start again");
    let RunConfig { options, plan, .. } = &config;
    let plan = plan.as_ref().ok_or_else(no_plan)?;
    let mut model = Config::build(&options.arch, &plan.settings)?;
    if let Some(name) = &options.name {
        model = model.with_name(name);
    }
    let model = Model::new(&model, options.seed, &Device::Cpu)?;
    let optimizer =
        Optimizer { betas: options.betas, eps: options.eps, weight_decay: options.weight_decay, clip: options.clip };
    let mut trainer = Trainer::new(model, optimizer)?.with_precision(options.precision);
    let checkpoints = Checkpoints::new(dir.root.join("checkpoints"))?;
    let progress = checkpoints.load_last(&mut trainer)?;
    if let Some(steps) = steps {
        config = with_steps(dir, config, steps, progress.map_or(0, |p| p.step))?;
    }
    let RunConfig { options, plan, .. } = &config;
    let plan = plan.as_ref().ok_or_else(no_plan)?;
    let metrics = Metrics::open(&dir.root.join("metrics.jsonl"), progress.map_or(0, |p| p.step))?;
    let progress = progress.unwrap_or_default();
    observer.event(Event::Started {
        arch: &options.arch,
        parameters: trainer.model().config().parameters() as u64,
        corpus_tokens: data.train.tokens(),
        step: progress.step,
        steps: plan.schedule.steps,
        step_tokens: plan.step_tokens(),
    });
    let probe = probe(&data.held_out, options.eval_bytes);
    let mut training =
        Training { dir, options, plan, data: &data, probe, trainer, checkpoints, metrics, progress, speeds: vec![] };
    let finished = training.steps(observer)?;
    if finished {
        let format = options.final_format()?;
        let save = SaveOptions { format, ..SaveOptions::default() };
        training.trainer.model().save_gguf(dir.model(), Some(&data.tokenizer), &save)?;
    }
    training.report(finished)
}

/// The same run with another number of steps.
fn with_steps(dir: &RunDir, mut config: RunConfig, steps: u64, done: u64) -> Result<RunConfig> {
    if let Some(plan) = &mut config.plan {
        let before = plan.schedule;
        plan.schedule.steps = steps;
        let fixed = before.level().min(plan.schedule.level());
        if before.steps != steps && (done > fixed || steps <= done) {
            return Err(Error::option(
                "steps",
                format!(
                    "the run has done {done} steps, and from step {fixed} on the learning rate depends on their number; \
                     continue without --steps"
                ),
            ));
        }
    }
    config.options.steps = Some(steps);
    config.options.tokens = None;
    dir.write_config(&config)?;
    dir.read_config()
}

/// The held-out files that are measured: some, in an order that does not depend on the seed, until there are enough
/// bytes.
fn probe(held_out: &Corpus, bytes: u64) -> Vec<Document> {
    /// Files larger than this would leave room for few others.
    const LARGE: u32 = 64 << 10;
    let mut order: Vec<usize> = (0..held_out.documents()).collect();
    SplitMix64::new(0, 0).shuffle(&mut order);
    order.sort_by_key(|&i| held_out.document_bytes(i) > LARGE);
    let mut documents = Vec::new();
    let mut sum = 0;
    for i in order {
        if sum >= bytes {
            break;
        }
        let mut tokens = Vec::new();
        held_out.read(i, 0..held_out.document_tokens(i), &mut tokens);
        let bytes = u64::from(held_out.document_bytes(i));
        sum += bytes;
        documents.push(Document { tokens, bytes });
    }
    documents
}

/// A run under way.
struct Training<'a> {
    dir: &'a RunDir,
    options: &'a TrainOptions,
    plan: &'a Plan,
    data: &'a Prepared,
    probe: Vec<Document>,
    trainer: Trainer,
    checkpoints: Checkpoints,
    metrics: Metrics,
    progress: Progress,
    speeds: Vec<f64>,
}

impl Training<'_> {
    /// Takes the steps that are left; `false` if the observer stopped it.
    fn steps(&mut self, observer: &mut dyn Observer) -> Result<bool> {
        let Plan { context, batch, accumulate, schedule, .. } = *self.plan;
        let position = self.progress.position;
        let mut packer = Packer::new(&self.data.train, self.data.separator, context, self.options.seed, position)?;
        if self.progress.step == 0 && self.metrics.lines.is_empty() {
            let first = self.measure()?;
            self.log(
                Metric {
                    held_out_loss: first.map(|s| s.loss()),
                    held_out_bits_per_byte: first.map(|s| s.bits_per_byte()),
                    ..self.metric()
                },
                observer,
            )?;
        }
        while self.progress.step < schedule.steps {
            let started = Instant::now();
            let batches: Vec<Batch> = (0..accumulate)
                .map(|_| {
                    let (inputs, targets) = packer.next_batch(batch);
                    Batch { inputs, targets, rows: batch }
                })
                .collect();
            let lr = schedule.rate(self.progress.step);
            let step = self.progress.step + 1;
            let result = self.trainer.step(&batches, lr, step)?;
            let bad =
                [("loss", result.loss), ("gradient norm", result.grad_norm)].into_iter().find(|(_, v)| !v.is_finite());
            if let Some((what, value)) = bad {
                return Err(Error::NotFinite { step, what, value, kept: self.kept()? });
            }
            let speed = self.plan.step_tokens() as f64 / started.elapsed().as_secs_f64();
            self.speeds.push(speed);
            let best = self.progress.best;
            let tokens = self.progress.tokens + self.plan.step_tokens();
            self.progress = Progress { step, tokens, position: packer.position(), best };
            let mut metric = Metric {
                loss: Some(result.loss),
                lr: Some(lr),
                grad_norm: Some(result.grad_norm),
                tokens_per_second: Some(speed),
                ..self.metric()
            };
            let last = step == schedule.steps;
            let measured = if last || step.is_multiple_of(self.plan.eval_every) { self.measure()? } else { None };
            let improved = measured.is_some_and(|s| best.is_none_or(|b| s.bits_per_byte() < b.bits_per_byte));
            if let Some(score) = measured {
                metric.held_out_loss = Some(score.loss());
                metric.held_out_bits_per_byte = Some(score.bits_per_byte());
                if improved {
                    self.progress.best = Some(Best { step, bits_per_byte: score.bits_per_byte() });
                }
            }
            let draw = metric.held_out_loss.is_some() || last;
            self.saved(|t| t.log(metric, observer))?;
            let stop = observer.stop();
            if last || stop || improved || step.is_multiple_of(self.plan.checkpoint_every) {
                self.saved(|t| {
                    t.metrics.sync()?;
                    t.checkpoints.save(&t.trainer, &t.progress)
                })?;
                observer.event(Event::Checkpoint { step });
            }
            if draw {
                self.saved(|t| curve::draw_curve(&t.metrics.lines, &t.title(), &t.dir.root.join("loss.png")))?;
            }
            if stop && !last {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// A line for where the run stands, with nothing measured.
    fn metric(&self) -> Metric {
        let Progress { step, tokens, .. } = self.progress;
        Metric { step, tokens, ..Metric::default() }
    }

    fn log(&mut self, metric: Metric, observer: &mut dyn Observer) -> Result<()> {
        observer.event(Event::Metric(&metric));
        self.metrics.push(metric)
    }

    /// Does something with the disk; a failure says what is left to continue from.
    fn saved(&mut self, f: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        match f(self) {
            Ok(()) => Ok(()),
            Err(e) => Err(Error::Save { step: self.progress.step, source: Box::new(e), kept: self.kept()? }),
        }
    }

    fn kept(&self) -> Result<String> {
        Ok(match self.checkpoints.steps()?.last() {
            Some(step) => format!("the checkpoint of step {step} is intact, continue from it with --resume"),
            None => "there is no checkpoint yet, --resume starts from the beginning".into(),
        })
    }

    fn measure(&self) -> Result<Option<Score>> {
        if self.probe.is_empty() {
            return Ok(None);
        }
        let evaluation = Evaluation::new(self.trainer.model(), self.data.separator, self.plan.context);
        let (scores, _) = evaluation.run(&self.probe, &mut |_| ())?;
        let mut sum = Score::default();
        scores.into_iter().for_each(|s| sum += s);
        Ok(Some(sum))
    }

    fn title(&self) -> String {
        let parameters = self.trainer.model().config().parameters() as f64 / 1e6;
        let name = self.options.name.as_deref().unwrap_or(&self.options.arch);
        format!("{name}: {parameters:.1} million parameters")
    }

    fn report(mut self, finished: bool) -> Result<Report> {
        let losses: Vec<f64> = self.metrics.lines.iter().filter_map(|m| m.loss).collect();
        let tail = &losses[losses.len() - (losses.len() / 50).max(1).min(losses.len())..];
        let measured = self.metrics.lines.iter().rev().find(|m| m.held_out_loss.is_some());
        self.speeds.sort_by(f64::total_cmp);
        Ok(Report {
            run: self.dir.root.clone(),
            model: finished.then(|| self.dir.model()),
            step: self.progress.step,
            tokens: self.progress.tokens,
            parameters: self.trainer.model().config().parameters() as u64,
            loss: (!tail.is_empty()).then(|| tail.iter().sum::<f64>() / tail.len() as f64),
            held_out_loss: measured.and_then(|m| m.held_out_loss),
            held_out_bits_per_byte: measured.and_then(|m| m.held_out_bits_per_byte),
            tokens_per_second: self.speeds.get(self.speeds.len() / 2).copied(),
        })
    }
}
