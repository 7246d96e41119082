//! The requests: one answer for each job now, or all updates until the last job completes, within the timeout.

use std::future::pending;
use std::pin::pin;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use futures_util::stream::select_all;
use tokio::signal::ctrl_c;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};

use super::duration;
use super::follow::{FollowEvent, follow};
use super::gateway::{FieldSet, GatewayClient, GatewayError, JobOutcome, REFS_MAX, WireUpdate};
use super::mode::JobMode;
use super::outcome::ExitOutcome;
use super::screen::{Screen, ScreenItem};
use super::table::JobTable;

/// The default timeout of `get`.
const GET_TIMEOUT: Duration = Duration::from_secs(30);
/// How often the panel is redrawn.
const TICK: Duration = Duration::from_millis(120);

/// The gateway, the jobs and the options.
pub(super) struct JobRequest {
    pub(super) gateway: GatewayClient,
    pub(super) max_staleness: Option<Duration>,
    pub(super) timeout: Option<Duration>,
    pub(super) set: FieldSet,
    /// Returns a random number from 0 (included) to 1 (excluded).
    pub(super) jitter: fn() -> f64,
}

/// A running request.
struct JobRequestTask<'t, 'o> {
    mode: JobMode,
    table: JobTable,
    screen: Screen<'t, 'o>,
    /// The last message about the connection, until the gateway answers again.
    complaint: Option<String>,
    /// Why the request failed permanently, if it did: every stream reports it.
    given_up: Option<String>,
    /// Whether the user stopped the command.
    interrupted: bool,
    started: Instant,
}

impl JobRequest {
    /// Runs the request, prints the answers, and returns the outcome. Fails when they cannot be printed.
    pub(super) async fn run(
        self,
        mode: JobMode,
        table: JobTable,
        screen: Screen<'_, '_>,
    ) -> anyhow::Result<ExitOutcome> {
        let mut task = JobRequestTask {
            mode,
            table,
            screen,
            complaint: None,
            given_up: None,
            interrupted: false,
            started: Instant::now(),
        };
        match mode {
            JobMode::Get => self.once(&mut task).await?,
            JobMode::Watch | JobMode::Await => self.follow(&mut task).await?,
        }
        task.close()
    }

    /// One answer each; more jobs than fit into one query are read by several concurrent ones.
    async fn once(self, task: &mut JobRequestTask<'_, '_>) -> anyhow::Result<()> {
        let groups = task.table.groups(REFS_MAX);
        let questions = groups.iter().map(|refs| self.gateway.jobs(refs, self.max_staleness, self.set));
        let limit = self.timeout.unwrap_or(GET_TIMEOUT);
        let Ok(answered) = timeout(limit, join_all(questions)).await else {
            return task.time_is_up(limit);
        };
        for answers in answered {
            match answers {
                Ok(answers) => {
                    for answer in &answers {
                        task.show(ScreenItem::Answer(answer))?;
                    }
                }
                Err(error) => task.give_up(&error)?,
            }
        }
        Ok(())
    }

    /// Every update until the last job completes, the request fails permanently, or the time is up.
    async fn follow(self, task: &mut JobRequestTask<'_, '_>) -> anyhow::Result<()> {
        let Self { gateway, max_staleness, timeout, set, jitter } = self;
        let begin = |refs| Box::pin(follow(gateway.clone(), refs, max_staleness, set, jitter));
        let mut events = select_all(task.table.groups(REFS_MAX).into_iter().map(begin));
        let deadline = timeout.and_then(|limit| Instant::now().checked_add(limit));
        let mut time_is_up = pin!(async move {
            match deadline {
                Some(deadline) => sleep_until(deadline).await,
                None => pending().await,
            }
        });
        let mut stop = pin!(async {
            // without a handler of the signal it ends the process
            if ctrl_c().await.is_err() {
                pending::<()>().await;
            }
        });
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                biased;
                () = &mut stop => {
                    task.interrupted = true;
                    return Ok(());
                }
                event = events.next() => match event {
                    Some(FollowEvent::Update(update)) => task.show_update(&update)?,
                    Some(FollowEvent::Failed { why, pause }) => task.show_error(&why, pause)?,
                    Some(FollowEvent::GaveUp(why)) => task.give_up(&why)?,
                    None => return Ok(()),
                },
                () = &mut time_is_up => return task.time_is_up(timeout.unwrap_or_default()),
                _ = ticks.tick(), if task.screen.moves() => task.screen.tick()?,
            }
        }
    }
}

impl JobRequestTask<'_, '_> {
    fn show_update(&mut self, update: &WireUpdate) -> anyhow::Result<()> {
        if self.complaint.take().is_some() {
            self.screen.complain("connection to the gateway restored")?;
        }
        // `await` prints only final updates
        if self.mode == JobMode::Await && !update.is_final {
            let rendered = self.screen.of(ScreenItem::Update(update));
            self.table.take(&update.answer, &rendered, false, self.mode);
            return Ok(());
        }
        self.show(ScreenItem::Update(update))
    }

    /// Prints a change.
    fn show(&mut self, rendered: ScreenItem<'_>) -> anyhow::Result<()> {
        let (answer, is_final) = rendered.parts();
        let text = self.screen.of(rendered);
        if let Some(index) = self.table.take(answer, &text, is_final, self.mode)
            && let Some(job) = self.table.jobs().get(index)
        {
            self.screen.show(index, job, rendered)?;
        }
        Ok(())
    }

    fn show_error(&mut self, why: &GatewayError, pause: Duration) -> anyhow::Result<()> {
        let text = why.to_string();
        // the same message is not repeated, because there are many retries
        if self.complaint.as_ref() != Some(&text) {
            let seconds = pause.as_millis().div_ceil(1_000);
            self.screen.complain(&format!("{text}; retrying in {seconds}s"))?;
            self.complaint = Some(text);
        }
        Ok(())
    }

    fn give_up(&mut self, why: &GatewayError) -> anyhow::Result<()> {
        let text = why.to_string();
        if self.given_up.as_ref() != Some(&text) {
            self.screen.complain(&text)?;
            self.given_up = Some(text);
        }
        Ok(())
    }

    fn time_is_up(&mut self, limit: Duration) -> anyhow::Result<()> {
        self.screen.close()?;
        self.screen.complain(&format!("timed out after {}", duration::format(limit)))?;
        Ok(())
    }

    /// Prints the jobs without a final answer and the summary, and returns the total outcome.
    fn close(mut self) -> anyhow::Result<ExitOutcome> {
        self.screen.close()?;
        for job in self.table.jobs().iter().filter(|job| !job.is_over()) {
            let last = job.last();
            if let Some(last) = last.filter(|_| self.mode == JobMode::Await) {
                self.screen.show_unfinished(job, last)?;
            }
            let label = job.label();
            let left = match last.map(|last| &last.outcome) {
                Some(JobOutcome::Job(_)) => format!("{label} is not terminal"),
                Some(JobOutcome::Problem(_)) | None => format!("no result for {label}"),
            };
            // a user who stops the command knows
            if !self.interrupted {
                self.screen.complain(&left)?;
            }
        }
        if self.mode == JobMode::Watch {
            self.screen.summarize(self.table.jobs(), self.started.elapsed().as_secs())?;
        }
        Ok(if self.interrupted { ExitOutcome::Interrupted } else { self.table.outcome() })
    }
}
