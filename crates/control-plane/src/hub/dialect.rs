//! axum's WebSocket, as the link's shell speaks it.

use axum::extract::ws::{CloseFrame, Message, Utf8Bytes};
use link::shell::{Dialect, Incoming};
use std::error::Error as _;
use tokio_tungstenite::tungstenite;

#[derive(Debug)]
pub(super) struct Axum;

impl Dialect for Axum {
    type Message = Message;
    type Error = axum::Error;
    type Text = Utf8Bytes;

    fn text(frame: String) -> Message {
        Message::text(frame)
    }

    fn close(code: u16, reason: &'static str) -> Message {
        Message::Close(Some(CloseFrame {
            code,
            reason: reason.into(),
        }))
    }

    fn read(message: Message) -> Incoming<Utf8Bytes> {
        match message {
            Message::Text(text) => Incoming::Text(text),
            Message::Binary(_) => Incoming::Binary,
            // axum answers pings.
            Message::Ping(_) | Message::Pong(_) => Incoming::Other,
            Message::Close(frame) => {
                Incoming::Close(frame.map(|frame| (frame.code, frame.reason.to_string())))
            }
        }
    }

    fn is_oversized(error: &axum::Error) -> bool {
        error
            .source()
            .and_then(|source| source.downcast_ref::<tungstenite::Error>())
            .is_some_and(|error| matches!(error, tungstenite::Error::Capacity(_)))
    }
}
