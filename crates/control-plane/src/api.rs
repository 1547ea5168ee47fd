//! The public REST API, `/api/v1`: one endpoint a file, with its description.
//!
//! Every request passes [`guard`] (trace id, host, credentials, origin) and, where it is a POST with a key, [`idempotency`], before its handler.
//! `openapi.json` beside this crate's manifest is the description; a test compares the two.

pub(crate) mod catalog;
pub(crate) mod delegates;
pub(crate) mod error;
pub(crate) mod extract;
pub(crate) mod gateways;
pub(crate) mod gitspaces;
pub(crate) mod guard;
pub(crate) mod idempotency;
pub(crate) mod me;
pub(crate) mod meta;
pub(crate) mod page;
pub(crate) mod revoke_grant;
pub(crate) mod sse;
pub(crate) mod ssh_keys;
pub(crate) mod ssh_known_hosts;
pub(crate) mod users;

use crate::{gateways as links, pages, state::AppState};
use axum::{
    Router, middleware,
    response::{IntoResponse as _, Response},
    routing::get,
};
use error::ApiError;
use http::header;
use std::any::Any;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::openapi::{
    Info, OpenApi, OpenApiBuilder,
    security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme},
};
use utoipa_axum::{router::OpenApiRouter, routes};

const PREFIX: &str = "/api/v1";

/// Endpoints for users.
fn private(state: &AppState) -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(me::me))
        .routes(routes!(
            gitspaces::list::list_gitspaces,
            gitspaces::create::create_gitspace
        ))
        .routes(routes!(
            gitspaces::show::show_gitspace,
            gitspaces::delete::delete_gitspace
        ))
        .routes(routes!(gitspaces::act::act_on_gitspace))
        .routes(routes!(gitspaces::events::gitspace_events))
        .routes(routes!(gitspaces::logs::gitspace_logs))
        .routes(routes!(gitspaces::grant::create_grant))
        .routes(routes!(gitspaces::link::create_link))
        .routes(routes!(gitspaces::ports::list_shared_ports))
        .routes(routes!(gitspaces::ports::share_port))
        .routes(routes!(revoke_grant::revoke_grant))
        .routes(routes!(delegates::list_delegates::list_delegates))
        .routes(routes!(
            delegates::show_delegate::show_delegate,
            delegates::revoke_delegate::revoke_delegate
        ))
        .routes(routes!(delegates::probe_delegate::probe_delegate))
        .routes(routes!(delegates::remove_unaccounted::remove_unaccounted))
        .routes(routes!(
            delegates::list_join_tokens::list_join_tokens,
            delegates::create_join_token::create_join_token
        ))
        .routes(routes!(delegates::revoke_join_token::revoke_join_token))
        .routes(routes!(
            gateways::list_gateways::list_gateways,
            gateways::register_gateway::register_gateway
        ))
        .routes(routes!(gateways::revoke_gateway::revoke_gateway))
        .routes(routes!(
            catalog::list_infra_providers::list_infra_providers,
            catalog::create_infra_provider::create_infra_provider
        ))
        .routes(routes!(
            catalog::delete_infra_provider::delete_infra_provider
        ))
        .routes(routes!(catalog::create_machine::create_machine))
        .routes(routes!(catalog::list_machines::list_machines))
        .routes(routes!(catalog::delete_machine::delete_machine))
        .routes(routes!(
            users::list_users::list_users,
            users::create_user::create_user
        ))
        .routes(routes!(users::update_user::update_user))
        .routes(routes!(
            users::list_tokens_of::list_tokens_of,
            users::create_token_for::create_token_for
        ))
        .routes(routes!(
            users::list_tokens::list_tokens,
            users::create_token::create_token
        ))
        .routes(routes!(users::revoke_token::revoke_token))
        .routes(routes!(
            users::list_git_credentials::list_git_credentials,
            users::put_git_credential::put_git_credential
        ))
        .routes(routes!(users::delete_git_credential::delete_git_credential))
        .routes(routes!(
            ssh_keys::list_ssh_keys::list_ssh_keys,
            ssh_keys::create_ssh_key::create_ssh_key
        ))
        .routes(routes!(ssh_keys::delete_ssh_key::delete_ssh_key))
        .routes(routes!(ssh_known_hosts::ssh_known_hosts))
        // The last one added runs first.
        .route_layer(middleware::from_fn_with_state(
            state.clone(),
            idempotency::idempotent,
        ))
        .route_layer(middleware::from_fn_with_state(
            state.clone(),
            guard::authenticated,
        ))
}

/// Endpoints that authenticate in their own way, or not at all.
fn public() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(delegates::enroll::enroll_delegate))
        .routes(routes!(delegates::challenge_key::challenge_delegate_key))
        .routes(routes!(delegates::propose_key::propose_delegate_key))
        .routes(routes!(delegates::use_key::use_delegate_key))
        .routes(routes!(delegates::check_key::check_delegate_key))
        .routes(routes!(links::connect::connect_gateway))
        .routes(routes!(links::exchange::exchange_code))
        .routes(routes!(links::renew::renew_grant))
        .routes(routes!(links::ssh::ask_ssh))
        .routes(routes!(links::wake::wake_gitspace))
        .routes(routes!(meta::healthz))
        .routes(routes!(meta::version))
}

fn api(state: &AppState) -> (Router<AppState>, OpenApi) {
    let bearer = |format: &str| {
        let mut scheme = Http::new(HttpAuthScheme::Bearer);
        scheme.bearer_format = Some(format.to_owned());
        SecurityScheme::Http(scheme)
    };
    let mut description = OpenApiBuilder::new()
        .info(Info::new("Gitspaces control plane", "1"))
        .security(Some([SecurityRequirement::new(
            "access_token",
            Vec::<String>::new(),
        )]))
        .build();
    let components = description
        .components
        .get_or_insert_with(utoipa::openapi::Components::new);
    components.add_security_scheme("access_token", bearer("gsp_…"));
    components.add_security_scheme("gateway_token", bearer("gsg_…"));
    OpenApiRouter::with_openapi(description)
        .nest(PREFIX, private(state).merge(public()))
        .split_for_parts()
}

/// The description of the API, as `openapi.json` holds it.
pub(crate) fn describe(state: &AppState) -> Result<String, serde_json::Error> {
    let mut text = serde_json::to_string_pretty(&api(state).1)?;
    text.push('\n');
    Ok(text)
}

/// Everything that is served over HTTP.
pub(crate) fn router(state: &AppState, hub: Router) -> Result<Router, serde_json::Error> {
    let description = bytes::Bytes::from(describe(state)?);
    let (api, _) = api(state);
    let openapi = get(move || {
        let description = description.clone();
        async move { ([(header::CONTENT_TYPE, "application/json")], description) }
    });
    Ok(api
        .route(&format!("{PREFIX}/openapi.json"), openapi)
        .merge(pages::routes())
        .with_state(state.clone())
        .merge(hub)
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .layer(CatchPanicLayer::custom(panicked))
        .layer(middleware::from_fn_with_state(state.clone(), guard::host))
        .layer(middleware::from_fn_with_state(state.clone(), guard::trace)))
}

async fn no_route() -> ApiError {
    ApiError::NoRoute
}

async fn no_method() -> ApiError {
    ApiError::Method
}

#[expect(clippy::needless_pass_by_value, reason = "the layer's signature")]
fn panicked(panic: Box<dyn Any + Send>) -> Response {
    let words = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("a panic without words");
    ApiError::internal("handling the request", words.to_owned()).into_response()
}
