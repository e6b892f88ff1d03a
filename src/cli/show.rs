//! What people see: lines, tables, progress.

use comfy_table::{CellAlignment, Table, presets};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{ErrorKind, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Whether results for people go to standard error, because standard output carries the JSON.
static TO_STDERR: AtomicBool = AtomicBool::new(false);

/// Leaves standard output to the JSON.
pub(super) fn results_to_stderr() {
    TO_STDERR.store(true, Ordering::Relaxed);
}

/// The first failure of standard output.
static FAILED: Mutex<Option<std::io::Error>> = Mutex::new(None);

/// What kept results from standard output, if anything did.
pub(super) fn failure() -> Option<std::io::Error> {
    FAILED.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// Prints a line of the result. A reader that went away (`| head`) is no error; any other is kept for [`failure`].
pub(super) fn line(text: &str) {
    if TO_STDERR.load(Ordering::Relaxed) {
        return remark(text);
    }
    let mut out = std::io::stdout();
    if let Err(e) = writeln!(out, "{text}").and_then(|()| out.flush())
        && e.kind() != ErrorKind::BrokenPipe
    {
        FAILED.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(e);
    }
}

/// Prints a remark to standard error.
pub(super) fn remark(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// A table whose columns from `numbers` on are numbers.
pub(super) fn table(header: &[String], rows: &[Vec<String>], numbers: usize) -> String {
    let mut t = Table::new();
    t.load_style(presets::ASCII_BORDERS_ONLY_CONDENSED);
    t.set_header(header);
    t.add_rows(rows);
    for (i, c) in t.column_iter_mut().enumerate() {
        c.set_cell_alignment(if i < numbers { CellAlignment::Left } else { CellAlignment::Right });
    }
    t.trim_fmt()
}

/// Progress with rate and time left: a bar on a terminal, a plain line now and then elsewhere.
pub(super) struct Progress {
    bar: ProgressBar,
    plain: bool,
    what: &'static str,
    total: u64,
    start: Instant,
    last: Instant,
}

impl Progress {
    pub(super) fn new(quiet: bool, what: &'static str, total: usize) -> Progress {
        let total = total as u64;
        let terminal = std::io::stderr().is_terminal();
        let target =
            if quiet || !terminal { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let bar = ProgressBar::with_draw_target(Some(total), target);
        let style = "{msg} {wide_bar} {pos}/{len}  {per_sec}  {eta} left";
        bar.set_style(ProgressStyle::with_template(style).expect("the template is valid"));
        bar.set_message(what);
        let now = Instant::now();
        Progress { bar, plain: !quiet && !terminal, what, total, start: now, last: now }
    }

    pub(super) fn set(&mut self, done: usize) {
        const EVERY: Duration = Duration::from_secs(5);
        let done = done as u64;
        self.bar.set_position(done);
        if self.plain && done > 0 && self.last.elapsed() >= EVERY {
            self.last = Instant::now();
            #[allow(clippy::cast_precision_loss, reason = "a rate for people")]
            let rate = done as f64 / self.start.elapsed().as_secs_f64();
            #[allow(clippy::cast_precision_loss, reason = "a rate for people")]
            let left = self.total.saturating_sub(done) as f64 / rate;
            remark(&format!("{}: {done}/{} frames, {rate:.1}/s, {left:.0} s left", self.what, self.total));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
