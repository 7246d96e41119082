//! The part of a terminal that `job watch` rewrites: a line for each incomplete job as far as they fit, and the number of
//! the others. Pure text: `screen` writes it, and decides when.

use std::fmt::Write as _;

use jiff::Timestamp;

use super::gateway::{JobOutcome, WireJob, WireResult};
use super::line;
use super::style;
use super::summary;

/// The frames of the sign that the command is alive.
const FRAMES: [&str; 4] = ["|", "/", "-", "\\"];
/// The narrowest column of names, unless all names are shorter.
const LABEL_MIN: usize = 24;
/// The cells that names and bars leave to the details, if these need them; a long message takes what is left.
const DETAIL: usize = 24;
/// The cells of the time in a state: `59m`.
const TIME: usize = 3;
/// The fewest and the most cells of a progress bar with its brackets; without room for them it is left out.
const BAR: (usize, usize) = (12, 26);

/// The panel of one command.
#[derive(Debug)]
pub(super) struct Panel {
    jobs: Vec<PanelJob>,
    frame: usize,
    coloured: bool,
    /// The width of each line that is on the terminal. The cursor is on the line below them: what a terminal echoes
    /// there, such as `^C`, does not move it to another one.
    drawn: Vec<usize>,
}

/// A job of the panel.
#[derive(Clone, Debug)]
pub(super) struct PanelJob {
    label: String,
    answer: Option<WireResult>,
    is_over: bool,
}

/// The room for the lines, and how they look.
#[derive(Clone, Copy, Debug)]
pub(super) struct PanelSize {
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) coloured: bool,
}

impl Panel {
    /// A panel of these jobs, of which nothing is known yet.
    pub(super) fn new<'a>(labels: impl Iterator<Item = &'a str>, coloured: bool) -> Self {
        Self { jobs: labels.map(PanelJob::new).collect(), frame: 0, coloured, drawn: Vec::new() }
    }

    /// Takes the state of a job; it is drawn later.
    pub(super) fn show(&mut self, index: usize, label: &str, answer: &WireResult) {
        if let Some(job) = self.jobs.get_mut(index) {
            job.show(label, answer);
        }
    }

    /// Removes a job.
    pub(super) fn end(&mut self, index: usize) {
        if let Some(job) = self.jobs.get_mut(index) {
            job.is_over = true;
        }
    }

    /// What replaces the lines on the terminal by those as of `now`, on a terminal of this size.
    pub(super) fn draw(&mut self, now: Timestamp, (rows, columns): (usize, usize)) -> String {
        let size = PanelSize { rows, columns, coloured: self.coloured };
        self.frame = (self.frame + 1) % FRAMES.len();
        let lines = lines(&self.jobs, size, now, FRAMES[self.frame]);
        let mut text = self.up(columns);
        // each line is overwritten before its rest is erased, so that nothing flickers
        for line in &lines {
            text.push_str(line);
            text.push_str("\u{1b}[K\n");
        }
        text.push_str("\u{1b}[J");
        self.drawn = lines.iter().map(|line| style::width(line)).collect();
        text
    }

    /// What removes the lines from the terminal.
    pub(super) fn erase(&mut self, columns: usize) -> String {
        let text = format!("{}\u{1b}[J", self.up(columns));
        self.drawn.clear();
        text
    }

    /// Moves the cursor to the first line. A line that is wider than the terminal has become takes several rows.
    fn up(&self, columns: usize) -> String {
        let rows: usize = self.drawn.iter().map(|width| width.div_ceil(columns.max(1)).max(1)).sum();
        let mut text = String::from("\r");
        if rows > 0 {
            // writing to a string cannot fail
            write!(text, "\u{1b}[{rows}A").ok();
        }
        text
    }
}

impl PanelJob {
    pub(super) fn new(label: &str) -> Self {
        Self { label: label.to_owned(), answer: None, is_over: false }
    }

    pub(super) fn show(&mut self, label: &str, answer: &WireResult) {
        label.clone_into(&mut self.label);
        self.answer = Some(answer.clone());
    }

    fn job(&self) -> Option<&WireJob> {
        match &self.answer.as_ref()?.outcome {
            JobOutcome::Job(job) => Some(job),
            JobOutcome::Problem(_) => None,
        }
    }

    /// The state, or the word in its place.
    fn state(&self) -> &str {
        match (&self.answer, self.job()) {
            (_, Some(job)) => &job.state,
            (Some(_), None) => "RETRYING",
            (None, None) => "-",
        }
    }

    fn counts(&self) -> String {
        self.job().and_then(line::progress).unwrap_or_default()
    }

    fn time(&self, now: Timestamp) -> String {
        let since = self.job().and_then(|job| job.state_since.as_deref());
        since.and_then(|since| style::since(since, now)).unwrap_or_default()
    }

    fn detail(&self, now: Timestamp) -> String {
        match &self.answer {
            None => "connecting".to_owned(),
            Some(answer) => match &answer.outcome {
                JobOutcome::Job(job) => line::detail(job, Some(now)),
                JobOutcome::Problem(problem) => {
                    line::visible(&format!("{}: {}", problem.code, problem.message)).into_owned()
                }
            },
        }
    }

    /// The progress as a bar in as many cells; blank if the job reports none.
    fn bar(&self, cells: usize) -> String {
        let progress = self.job().and_then(|job| job.progress).filter(|progress| progress.total > 0);
        let Some(progress) = progress else { return " ".repeat(cells) };
        let room = cells.saturating_sub(2) as u64;
        let done = progress.completed.min(progress.total).saturating_mul(room) / progress.total;
        let done = usize::try_from(done).unwrap_or_default();
        let left = cells.saturating_sub(2 + done);
        let head = if left > 0 { ">" } else { "" };
        format!("[{}{head}{}]", "=".repeat(done), " ".repeat(left.saturating_sub(1)))
    }
}

/// The lines of the incomplete jobs in the order of the arguments; the last one counts those that do not fit.
pub(super) fn lines(jobs: &[PanelJob], size: PanelSize, now: Timestamp, frame: &str) -> Vec<String> {
    let open: Vec<&PanelJob> = jobs.iter().filter(|job| !job.is_over).collect();
    // one row is left for the cursor, one for the count
    let room = size.rows.saturating_sub(1).max(1);
    let shown = if open.len() <= room { open.len() } else { room - 1 };
    let (shown, others) = open.split_at(shown);
    // a terminal may wrap a line that fills it
    let width = size.columns.saturating_sub(1);
    let most = |of: &dyn Fn(&PanelJob) -> usize| shown.iter().map(|job| of(job)).max().unwrap_or_default();
    let label_max = most(&|job| style::width(&job.label));
    let state = most(&|job| style::width(job.state()));
    let counts = most(&|job| job.counts().len());
    let detail = most(&|job| style::width(&job.detail(now))).min(DETAIL);
    let gap = |cells: usize| if cells == 0 { 0 } else { cells + 1 };
    let fixed = 2 + gap(state) + gap(TIME) + gap(counts);
    let room_for_label =
        width.saturating_sub(fixed + gap(detail)).max(LABEL_MIN).min(width.saturating_sub(fixed));
    let label = label_max.min(room_for_label);
    let spare = width.saturating_sub(fixed + label + gap(detail) + 1);
    let bar = if counts > 0 && spare >= BAR.0 { spare.min(BAR.1) } else { 0 };
    let line = |job: &&PanelJob| {
        let name = job.state();
        let painted = style::paint(name, name, size.coloured);
        let mut parts = vec![
            format!("{frame} {}", style::pad(&style::cut_middle(&job.label, label), label)),
            format!("{painted}{:1$}", "", state.saturating_sub(style::width(name))),
            format!("{:>TIME$}", job.time(now)),
        ];
        if bar > 0 {
            parts.push(job.bar(bar));
        }
        if counts > 0 {
            parts.push(format!("{:>counts$}", job.counts()));
        }
        parts.push(job.detail(now));
        let line = style::cut(parts.join(" ").trim_end(), width).into_owned();
        // the cut may have taken the end of the colour
        if size.coloured && !line.ends_with("\u{1b}[0m") { format!("{line}\u{1b}[0m") } else { line }
    };
    let mut lines: Vec<String> = shown.iter().map(line).collect();
    if !others.is_empty() {
        let states = summary::by_state(others.iter().map(|job| job.state()), false);
        lines.push(style::cut(&format!("and {} more: {states}", others.len()), width).into_owned());
    }
    lines
}
