//! A session whose channels are the gitspace's: messages of the connection layer pass as they are.
//!
//! The one thing that is ours is to ask the client now and then whether it is there. Answers to global requests have no number, but an order: a
//! queue says whose each is.

use super::{
    keep_alive::{self, KeepAlive, Silent},
    leg::{Leg, LegError},
};
use ssh_transport::{Packet, TransportError, number};
use std::{
    collections::VecDeque,
    future::poll_fn,
    task::{Context, Poll},
};
use tokio::io::{AsyncRead, AsyncWrite};

/// Messages in one turn: others want theirs.
const TURN: usize = 128;
/// Global requests of the gitspace's that wait for their answers: as many as anybody forwards ports.
const MAX_ASKED: usize = 1024;

#[derive(Debug, thiserror::Error)]
pub(super) enum SpliceError {
    #[error("the client's end of the session broke off")]
    User(#[source] LegError),
    #[error("the gitspace's end of the session broke off")]
    Gitspace(#[source] LegError),
    #[error(transparent)]
    Silent(#[from] Silent),
}

/// Who waits for an answer of the client's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Us,
    Gitspace,
}

#[derive(Debug)]
pub(super) struct Splice<'a, U, G> {
    user: &'a mut Leg<U>,
    gitspace: &'a mut Leg<G>,
    asked: VecDeque<Asked>,
    keep_alive: KeepAlive,
    /// Passed on, in both directions.
    bytes: &'a mut u64,
}

impl<'a, U, G> Splice<'a, U, G>
where
    U: AsyncRead + AsyncWrite + Unpin,
    G: AsyncRead + AsyncWrite + Unpin,
{
    pub(super) fn new(user: &'a mut Leg<U>, gitspace: &'a mut Leg<G>, bytes: &'a mut u64) -> Self {
        Self {
            user,
            gitspace,
            asked: VecDeque::new(),
            keep_alive: KeepAlive::new(),
            bytes,
        }
    }

    /// Until one end is gone; `first` was read already. Cancel-safe.
    pub(super) async fn run(&mut self, first: Option<&Packet>) -> Result<(), SpliceError> {
        if let Some(first) = first {
            self.take_users(first)?;
        }
        poll_fn(|cx| self.poll_turn(cx)).await
    }

    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SpliceError>> {
        while let Poll::Ready(ask) = self.keep_alive.poll_tick(cx) {
            self.user.relax();
            self.gitspace.relax();
            if ask? {
                self.asked.push_back(Asked::Us);
                self.user
                    .send(&keep_alive::question())
                    .map_err(SpliceError::User)?;
            }
        }
        let mut left = TURN;
        loop {
            let user = self.user.poll_move(cx).map_err(SpliceError::User)?;
            let gitspace = self.gitspace.poll_move(cx).map_err(SpliceError::Gitspace)?;
            let mut moved = user || gitspace;
            let before = self.produced();
            while left > 0 && self.gitspace.has_room(self.user) {
                let Some(packet) = self.user.transport.next().map_err(of_user)? else {
                    break;
                };
                self.take_users(&packet)?;
                (moved, left) = (true, left - 1);
            }
            while left > 0 && self.user.has_room(self.gitspace) {
                let Some(packet) = self.gitspace.transport.next().map_err(of_gitspace)? else {
                    break;
                };
                self.take_gitspaces(&packet)?;
                (moved, left) = (true, left - 1);
            }
            if left == 0 {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if moved || self.produced() != before {
                continue;
            }
            // What the one has said is with the other before the end is.
            if self.user.is_closed() && self.gitspace.transport.output().is_empty() {
                return Poll::Ready(Ok(()));
            }
            if self.gitspace.is_closed() && self.user.transport.output().is_empty() {
                return Poll::Ready(Err(SpliceError::Gitspace(LegError::Closed)));
            }
            return Poll::Pending;
        }
    }

    fn produced(&self) -> (usize, usize) {
        (
            self.user.transport.output().len(),
            self.gitspace.transport.output().len(),
        )
    }

    fn take_users(&mut self, packet: &Packet) -> Result<(), SpliceError> {
        self.keep_alive.heard();
        let number = packet.number();
        match number {
            number::REQUEST_SUCCESS | number::REQUEST_FAILURE => match self.asked.pop_front() {
                Some(Asked::Us) => return Ok(()),
                Some(Asked::Gitspace) => {}
                None => return Err(out_of_turn(number)),
            },
            number::GLOBAL_REQUEST.. if number < number::PING => {}
            number => return Err(out_of_turn(number)),
        }
        *self.bytes += length(packet);
        self.gitspace.send(packet).map_err(SpliceError::Gitspace)
    }

    fn take_gitspaces(&mut self, packet: &Packet) -> Result<(), SpliceError> {
        let number = packet.number();
        if number < number::GLOBAL_REQUEST {
            return Err(of_gitspace(TransportError::OutOfTurn { number }));
        }
        if number == number::GLOBAL_REQUEST {
            let mut fields = packet.fields();
            let malformed = |error| of_gitspace(TransportError::from(error));
            let name = fields.text().map_err(malformed)?;
            // Its host keys are not those of this connection.
            if name.starts_with("hostkeys-") {
                return Ok(());
            }
            if fields.boolean().map_err(malformed)? {
                if self.asked.len() >= MAX_ASKED {
                    return Err(of_gitspace(TransportError::Flood));
                }
                self.asked.push_back(Asked::Gitspace);
            }
        }
        *self.bytes += length(packet);
        self.user.send(packet).map_err(SpliceError::User)
    }
}

fn length(packet: &Packet) -> u64 {
    u64::try_from(packet.len()).unwrap_or(u64::MAX)
}

fn of_user(error: TransportError) -> SpliceError {
    SpliceError::User(error.into())
}

fn of_gitspace(error: TransportError) -> SpliceError {
    SpliceError::Gitspace(error.into())
}

fn out_of_turn(number: u8) -> SpliceError {
    of_user(TransportError::OutOfTurn { number })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ssh_transport::{HostKey, Transport, Writer};
    use std::sync::Arc;
    use tokio::{
        io::{DuplexStream, duplex},
        time::Instant,
    };

    type End = Leg<DuplexStream>;

    /// A connection: a client's end, and a server's.
    fn line() -> (End, End) {
        let key = Arc::new(HostKey::generate().unwrap());
        let (one, other) = duplex(4096);
        (
            Leg::new(one, Transport::client("client").unwrap()),
            Leg::new(other, Transport::server(key, "server").unwrap()),
        )
    }

    fn ask(name: &str) -> Vec<u8> {
        Writer::message(number::GLOBAL_REQUEST)
            .string(name)
            .boolean(true)
            .finish()
    }

    fn data(words: &str) -> Vec<u8> {
        Writer::message(number::CHANNEL_DATA)
            .number(0)
            .string(words)
            .finish()
    }

    /// A client and a gitspace with a splice between them, while `act` goes on; answers with how the splice ended, where it did.
    async fn between(act: impl AsyncFnOnce(&mut End, &mut End)) -> Option<Result<(), SpliceError>> {
        let ((mut client, mut user), (mut inner, mut gitspace)) = (line(), line());
        client.send(&data("first")).unwrap();
        let first = tokio::select! {
            first = user.packet() => first.unwrap(),
            _ = client.packet() => panic!("the client hears nothing yet"),
        };
        let mut bytes = 0;
        let mut splice = Splice::new(&mut user, &mut inner, &mut bytes);
        tokio::select! {
            ended = splice.run(Some(&first)) => Some(ended),
            () = act(&mut client, &mut gitspace) => None,
        }
    }

    /// The next message of `of`, while `other` moves on, too.
    async fn heard(of: &mut End, other: &mut End) -> Vec<u8> {
        tokio::select! {
            packet = of.packet() => packet.unwrap().to_vec(),
            packet = other.packet() => panic!("{:?} came to the other end", packet.unwrap()),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_answer_to_our_own_question_is_not_passed_on() {
        let ended = between(async |client, gitspace| {
            assert_eq!(heard(gitspace, client).await, data("first"));
            assert_eq!(heard(client, gitspace).await, keep_alive::question());
            client.send(&[number::REQUEST_FAILURE]).unwrap();
            gitspace.send(&ask("theirs")).unwrap();
            assert_eq!(heard(client, gitspace).await, ask("theirs"));
            client.send(&[number::REQUEST_SUCCESS]).unwrap();
            assert_eq!(heard(gitspace, client).await, [number::REQUEST_SUCCESS]);
        })
        .await;
        assert!(ended.is_none(), "{ended:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_never_answers_is_given_up_after_three_questions() {
        let begun = Instant::now();
        let ended = between(async |client, gitspace| {
            assert_eq!(heard(gitspace, client).await, data("first"));
            loop {
                assert_eq!(heard(client, gitspace).await, keep_alive::question());
            }
        })
        .await;
        assert!(
            matches!(ended, Some(Err(SpliceError::Silent(_)))),
            "{ended:?}"
        );
        // The first turn was not silent.
        assert_eq!(begun.elapsed().as_secs(), 150);
    }

    #[tokio::test(start_paused = true)]
    async fn host_keys_of_the_gitspace_are_not_those_of_the_gateway() {
        let ended = between(async |client, gitspace| {
            assert_eq!(heard(gitspace, client).await, data("first"));
            gitspace.send(&ask("hostkeys-00@openssh.com")).unwrap();
            gitspace.send(&data("then")).unwrap();
            assert_eq!(heard(client, gitspace).await, data("then"));
        })
        .await;
        assert!(ended.is_none(), "{ended:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_nobody_asked_for_ends_the_session() {
        let ended = between(async |client, gitspace| {
            assert_eq!(heard(gitspace, client).await, data("first"));
            client.send(&[number::REQUEST_SUCCESS]).unwrap();
            heard(gitspace, client).await;
        })
        .await;
        assert!(
            matches!(ended, Some(Err(SpliceError::User(_)))),
            "{ended:?}"
        );
    }
}
