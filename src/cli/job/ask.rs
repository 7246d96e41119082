//! The asking: one answer for each job now, or all updates until the last job has ended, within the time there is.

use std::future::pending;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use futures_util::stream::select_all;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};

use super::Mode;
use super::board::Board;
use super::outcome::Outcome;
use super::screen::{Screen, Shown};
use crate::domain::duration;
use crate::outbound::gateway::{self, Gateway, News, REFS_MAX, Told, Trouble, Update};
use crate::ports::entropy::Entropy;

/// How long `get` waits unless it was said.
const GET_TIMEOUT: Duration = Duration::from_secs(30);
/// How often what moves on the terminal does.
const TICK: Duration = Duration::from_millis(120);

/// Whom to ask, and how.
pub(super) struct Question {
    pub(super) gateway: Gateway,
    pub(super) max_staleness: Option<Duration>,
    pub(super) timeout: Option<Duration>,
    pub(super) entropy: Arc<dyn Entropy>,
}

/// The asking under way.
struct Asking<'t, 'o> {
    mode: Mode,
    board: Board,
    screen: Screen<'t, 'o>,
    /// What was last said about the gateway, until it answers again.
    complaint: Option<String>,
    /// Why the gateway was given up, if it was: every stream says so.
    given_up: Option<String>,
}

impl Question {
    /// Asks, shows what is learned, and says what it came to. Fails when it cannot be shown.
    pub(super) async fn ask(
        self,
        mode: Mode,
        board: Board,
        screen: Screen<'_, '_>,
    ) -> anyhow::Result<Outcome> {
        let mut asking = Asking { mode, board, screen, complaint: None, given_up: None };
        match mode {
            Mode::Get => self.once(&mut asking).await?,
            Mode::Watch | Mode::Await => self.follow(&mut asking).await?,
        }
        asking.close()
    }

    /// One answer each; more jobs than fit into one question are asked for in several at once.
    async fn once(self, asking: &mut Asking<'_, '_>) -> anyhow::Result<()> {
        let groups = asking.board.groups(REFS_MAX);
        let questions = groups.iter().map(|refs| self.gateway.jobs(refs, self.max_staleness));
        let limit = self.timeout.unwrap_or(GET_TIMEOUT);
        let Ok(answered) = timeout(limit, join_all(questions)).await else {
            return asking.time_is_up(limit);
        };
        for answers in answered {
            match answers {
                Ok(answers) => {
                    for answer in &answers {
                        asking.show(Shown::Answer(answer))?;
                    }
                }
                Err(trouble) => asking.give_up(&trouble)?,
            }
        }
        Ok(())
    }

    /// Every update until the last job has ended, the gateway is given up, or the time is up.
    async fn follow(self, asking: &mut Asking<'_, '_>) -> anyhow::Result<()> {
        let Self { gateway, max_staleness, timeout, entropy } = self;
        let begin =
            |refs| Box::pin(gateway::follow(gateway.clone(), refs, max_staleness, Arc::clone(&entropy)));
        let mut news = select_all(asking.board.groups(REFS_MAX).into_iter().map(begin));
        let deadline = timeout.and_then(|limit| Instant::now().checked_add(limit));
        let mut time_is_up = pin!(async move {
            match deadline {
                Some(deadline) => sleep_until(deadline).await,
                None => pending().await,
            }
        });
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                biased;
                heard = news.next() => match heard {
                    Some(News::Told(update)) => asking.told(&update)?,
                    Some(News::Trouble { why, pause }) => asking.trouble(&why, pause)?,
                    Some(News::GaveUp(why)) => asking.give_up(&why)?,
                    None => return Ok(()),
                },
                () = &mut time_is_up => return asking.time_is_up(timeout.unwrap_or_default()),
                _ = ticks.tick(), if asking.screen.moves() => asking.screen.tick(),
            }
        }
    }
}

impl Asking<'_, '_> {
    fn told(&mut self, update: &Update) -> anyhow::Result<()> {
        if self.complaint.take().is_some() {
            self.screen.complain("connection to the gateway restored")?;
        }
        // whoever awaits an end wants to hear of nothing else
        if self.mode == Mode::Await && !update.is_final {
            let shown = self.screen.of(Shown::Update(update));
            self.board.take(&update.answer, &shown, false, self.mode);
            return Ok(());
        }
        self.show(Shown::Update(update))
    }

    /// Shows what is news.
    fn show(&mut self, shown: Shown<'_>) -> anyhow::Result<()> {
        let (answer, is_final) = shown.parts();
        let text = self.screen.of(shown);
        if let Some(place) = self.board.take(answer, &text, is_final, self.mode)
            && let Some(job) = self.board.jobs().get(place)
        {
            self.screen.show(place, job, shown)?;
        }
        Ok(())
    }

    fn trouble(&mut self, why: &Trouble, pause: Duration) -> anyhow::Result<()> {
        let text = why.to_string();
        // the same again is no news, and the pauses are many
        if self.complaint.as_ref() != Some(&text) {
            let seconds = pause.as_millis().div_ceil(1_000);
            self.screen.complain(&format!("{text}; retrying in {seconds}s"))?;
            self.complaint = Some(text);
        }
        Ok(())
    }

    fn give_up(&mut self, why: &Trouble) -> anyhow::Result<()> {
        let text = why.to_string();
        if self.given_up.as_ref() != Some(&text) {
            self.screen.complain(&text)?;
            self.given_up = Some(text);
        }
        Ok(())
    }

    fn time_is_up(&mut self, limit: Duration) -> anyhow::Result<()> {
        self.screen.close();
        self.screen.complain(&format!("timed out after {}", duration::format(limit)))?;
        Ok(())
    }

    /// Says what stayed open, and what it all came to.
    fn close(mut self) -> anyhow::Result<Outcome> {
        self.screen.close();
        for job in self.board.jobs().iter().filter(|job| !job.is_over()) {
            let last = job.last();
            if let Some(last) = last.filter(|_| self.mode == Mode::Await) {
                self.screen.show_unfinished(job, last)?;
            }
            let label = job.label();
            let left = match last.map(|last| &last.told) {
                Some(Told::Job(_)) => format!("{label} is not terminal"),
                Some(Told::Problem(_)) | None => format!("no result for {label}"),
            };
            self.screen.complain(&left)?;
        }
        Ok(self.board.outcome())
    }
}
