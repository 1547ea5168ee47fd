//! Whether the process's main loops turn.
//!
//! A loop holds a [`Pulse`] and polls [`Pulse::beat`] in its `select!`. [`Pulses::silent`] asks every loop and names those that do not
//! answer. The service manager's watchdog is fed by that answer, and `healthz` tells it, so that a process whose runtime still turns
//! while one of its loops hangs is not taken for a healthy one.
//!
//! Invariant: asking costs a loop one wake-up, and nothing where nobody asks.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::timeout,
};

/// Questions that may wait for one loop: that of the watchdog, and that of somebody who looks. More wait outside.
const MAX_QUESTIONS: usize = 2;

/// The registered loops. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Pulses(Arc<Mutex<Vec<Loop>>>);

#[derive(Clone, Debug)]
struct Loop {
    name: &'static str,
    questions: mpsc::Sender<oneshot::Sender<()>>,
}

/// One loop's end.
#[derive(Debug)]
pub struct Pulse {
    questions: mpsc::Receiver<oneshot::Sender<()>>,
}

impl Pulses {
    /// Registers a loop. One that has ended, and so dropped its [`Pulse`], is asked no more.
    #[must_use]
    pub fn register(&self, name: &'static str) -> Pulse {
        let (sender, questions) = mpsc::channel(MAX_QUESTIONS);
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Loop {
                name,
                questions: sender,
            });
        Pulse { questions }
    }

    /// Names the loops that have not answered within `limit`.
    pub async fn silent(&self, limit: Duration) -> Vec<&'static str> {
        let loops: Vec<Loop> = {
            let mut loops = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            loops.retain(|one| !one.questions.is_closed());
            loops.clone()
        };
        let mut asked = JoinSet::new();
        for Loop { name, questions } in loops {
            asked.spawn(async move {
                let answered = timeout(limit, async {
                    let (reply, answer) = oneshot::channel();
                    // A loop that ended meanwhile is not stuck: the lifecycle knows what its end means.
                    questions.send(reply).await.is_err()
                        || answer.await.is_ok()
                        || questions.is_closed()
                });
                (!answered.await.unwrap_or(false)).then_some(name)
            });
        }
        let mut silent: Vec<_> = asked.join_all().await.into_iter().flatten().collect();
        silent.sort_unstable();
        silent
    }
}

/// Somebody wants to know whether the loop turns; dropped without an answer, it counts as one that does not.
#[derive(Debug)]
pub struct Question(oneshot::Sender<()>);

impl Question {
    pub fn answer(self) {
        if self.0.send(()).is_err() {
            tracing::trace!("Who asked a loop has given up");
        }
    }
}

impl Pulse {
    /// Answers whoever asks, and never ends. Cancel-safe.
    pub async fn beat(&mut self) -> std::convert::Infallible {
        loop {
            self.question().await.answer();
        }
    }

    /// The next question, for a loop whose answer needs more than its turn. Cancel-safe.
    pub async fn question(&mut self) -> Question {
        match self.questions.recv().await {
            Some(reply) => Question(reply),
            // Nobody will ask any more.
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_hangs_is_named_and_one_that_turns_is_not() {
        let pulses = Pulses::default();
        let mut turning = pulses.register("turning");
        let hanging = pulses.register("hanging");
        let (stop, stopped) = oneshot::channel::<()>();
        let turns = async {
            tokio::select! {
                never = turning.beat() => match never {},
                _ = stopped => {}
            }
        };
        let asks = async {
            let silent = pulses.silent(LIMIT).await;
            drop(stop);
            silent
        };
        let ((), silent) = tokio::join!(turns, asks);
        assert_eq!(silent, ["hanging"]);
        drop(hanging);
        drop(turning);
        assert!(pulses.silent(LIMIT).await.is_empty(), "both have ended");
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_hung_for_a_while_answers_again() {
        let pulses = Pulses::default();
        let mut slow = pulses.register("slow");
        for _ in 0..5 {
            assert_eq!(pulses.silent(LIMIT).await, ["slow"]);
        }
        let silent = tokio::select! {
            never = slow.beat() => match never {},
            silent = pulses.silent(LIMIT) => silent,
        };
        assert!(silent.is_empty(), "{silent:?}");
    }
}
