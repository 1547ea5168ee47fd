//! Frames as text. One frame is one WebSocket text message.

use crate::limits::MAX_REASON;
use serde::{Serialize, de::DeserializeOwned};
use wire::control::{DisconnectCode, Epoch, Frame, ProbeReport};

/// Why a frame is not taken.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    #[error("the frame has {length} bytes, more than {limit}")]
    TooLarge { length: usize, limit: usize },
    #[error("the frame cannot be read")]
    Unreadable {
        #[source]
        source: serde_json::Error,
    },
}

/// # Errors
/// Refuses text over `limit`, and what is not a frame.
pub fn decode<B: DeserializeOwned>(text: &str, limit: usize) -> Result<Frame<B>, FrameError> {
    if text.len() > limit {
        return Err(FrameError::TooLarge {
            length: text.len(),
            limit,
        });
    }
    serde_json::from_str(text).map_err(|source| FrameError::Unreadable { source })
}

/// # Errors
/// Fails where a value in it has no JSON form.
pub fn encode<B: Serialize>(frame: &Frame<B>) -> Result<String, serde_json::Error> {
    serde_json::to_string(frame)
}

/// [`Frame::Data`] around a body that is JSON already: it is encoded once, however often it is sent.
pub(crate) fn data(epoch: Epoch, seq: u64, ack: u64, body: &str) -> String {
    let Epoch(epoch) = epoch;
    format!(r#"{{"type":"data","epoch":{epoch},"seq":{seq},"ack":{ack},"body":{body}}}"#)
}

pub(crate) fn ack(epoch: Epoch, ack: u64) -> String {
    let Epoch(epoch) = epoch;
    format!(r#"{{"type":"ack","epoch":{epoch},"ack":{ack}}}"#)
}

pub(crate) fn ping(epoch: Epoch, id: u64) -> String {
    let Epoch(epoch) = epoch;
    format!(r#"{{"type":"ping","epoch":{epoch},"id":{id}}}"#)
}

pub(crate) fn pong(epoch: Epoch, id: u64) -> String {
    let Epoch(epoch) = epoch;
    format!(r#"{{"type":"pong","epoch":{epoch},"id":{id}}}"#)
}

pub(crate) fn probe(epoch: Epoch, id: u64, all: bool) -> Option<String> {
    encode::<()>(&Frame::Probe { epoch, id, all }).ok()
}

pub(crate) fn probed(epoch: Epoch, id: u64, report: ProbeReport) -> Option<String> {
    let frame = Frame::Probed {
        epoch,
        id,
        report: Box::new(report.bounded()),
    };
    encode::<()>(&frame).ok()
}

/// The last word. Where it cannot be written the peer sees only the end of the connection.
pub(crate) fn bye(code: DisconnectCode, reason: &str, hint: Option<&str>) -> Option<String> {
    encode::<()>(&Frame::Bye {
        code,
        reason: cut(reason).to_owned(),
        hint: hint.map(|hint| cut(hint).to_owned()),
    })
    .ok()
}

/// The start of `text`, at most [`MAX_REASON`] bytes of it.
pub(crate) fn cut(text: &str) -> &str {
    let mut end = text.len().min(MAX_REASON);
    while !text.is_char_boundary(end) {
        end = end.saturating_sub(1);
    }
    text.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::control::Up;

    #[test]
    fn hand_written_frames_read_as_what_they_say() {
        let body = serde_json::to_string(&Up::RunnerReady { ready: true }).expect("writes");
        let frame = decode::<Up>(&data(Epoch(3), 7, 9, &body), 1024).expect("reads");
        assert!(matches!(
            frame,
            Frame::Data {
                epoch: Epoch(3),
                seq: 7,
                ack: 9,
                body: Up::RunnerReady { ready: true }
            }
        ));
        for (text, wanted) in [
            (ack(Epoch(3), 7), "Ack"),
            (ping(Epoch(3), 7), "Ping"),
            (pong(Epoch(3), 7), "Pong"),
        ] {
            let frame = decode::<Up>(&text, 1024).expect("reads");
            assert!(format!("{frame:?}").starts_with(wanted), "{frame:?}");
        }
    }

    #[test]
    fn a_frame_above_the_limit_is_refused_before_it_is_read() {
        let error = decode::<Up>(&"x".repeat(11), 10).expect_err("refused");
        assert!(matches!(
            error,
            FrameError::TooLarge {
                length: 11,
                limit: 10
            }
        ));
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let text = bye(DisconnectCode::Other, &"é".repeat(MAX_REASON), None).expect("writes");
        let Ok(Frame::<Up>::Bye { reason, .. }) = decode(&text, 4096) else {
            panic!("not a bye: {text}");
        };
        assert_eq!(reason.len(), MAX_REASON);
    }
}
