//! Pages for a browser: login, and the way from a gateway without a grant to one with it. Small, made here, without scripts.
//!
//! Invariants: everything that is not a literal passes [`html::escape`]; a browser is sent only to origins of [`crate::origins`].

mod authorize;
mod home;
mod html;
mod login;
mod logout;

use crate::state::AppState;
use axum::{
    Router,
    routing::{get, post},
};

pub(crate) fn routes() -> Router<AppState> {
    Router::new()
        .route("/", get(home::home))
        .route("/login", get(login::form).post(login::submit))
        .route("/logout", post(logout::submit))
        .route("/authorize", get(authorize::authorize))
        .route(html::STYLE_PATH, get(html::style))
}
