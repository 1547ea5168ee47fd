//! `POST /delegates/enroll`

use super::check_tags;
use crate::{
    api::{
        error::ApiError,
        extract::{Body, check_name},
        guard::PeerAddress,
    },
    identity::{
        caller::refuse,
        delegate_keys::{Refusal, SET_CLOCK},
    },
    state::AppState,
};
use axum::{Extension, Json, extract::State};
use daemon::{ErrorChain, IdsExt as _};
use http::{HeaderMap, StatusCode, header};
use std::net::{IpAddr, Ipv4Addr};
use store::{DelegateRecord, Enrolment, EnrolmentDenied};
use token::{OpaqueToken, TokenError, TokenKind, VerifyingKey};
use wire::{
    control::{ENROL_PURPOSE, EnrolClaims, EnrolRequest, EnrolResponse, Epoch},
    problem::Problem,
};

/// Register a delegate's key with a join token.
///
/// The body is an `EnrolRequest`, its proof signed with the key. A delegate that did not get the answer may ask again with the same name and key.
#[utoipa::path(post, path = "/delegates/enroll", tag = "delegates", request_body = Object, responses(
    (status = 201, description = "`{\"delegate\": id, \"name\": name}`", body = Object),
    (status = 400, body = Problem),
    (status = 403, description = "The join token or the proof is not taken.", body = Problem),
    (status = 429, description = "Too many failures from this address.", body = Problem),
), security(()))]
pub(crate) async fn enroll_delegate(
    State(state): State<AppState>,
    peer: Option<Extension<PeerAddress>>,
    headers: HeaderMap,
    Body(body): Body<EnrolRequest>,
) -> Result<(StatusCode, Json<EnrolResponse>), ApiError> {
    let from = peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |Extension(peer)| peer.0);
    check_name("name", &body.name, 63)?;
    check_tags("tags", &body.tags)?;
    let key: VerifyingKey = body
        .public_key
        .parse()
        .map_err(|error: token::KeyError| ApiError::invalid("`public_key`", error.to_string()))?;
    let mut public_key = [0; 32];
    public_key.copy_from_slice(key.as_bytes());
    let now = state.now();
    let claims: EnrolClaims =
        token::verify(&body.proof, [&key], ENROL_PURPOSE, now).map_err(|error| match error {
            TokenError::Expired { iat, .. } | TokenError::NotYetValid { iat, .. } => {
                let Refusal { code, reason, .. } = Refusal::clock_skew(iat, now);
                ApiError::EnrolmentDenied {
                    code: code.as_str(),
                    why: reason,
                    hint: SET_CLOCK,
                }
            }
            error => bad_proof(&ErrorChain(&error).to_string()),
        })?;
    let host = headers
        .get(header::HOST)
        .and_then(|value| value.to_str().ok());
    if !state.public.is_same(&claims.audience, host) {
        return Err(bad_proof(&format!(
            "it was made for `{}`, and this is `{}`",
            claims
                .audience
                .chars()
                .filter(char::is_ascii_graphic)
                .take(255)
                .collect::<String>(),
            state.public.as_str()
        )));
    }
    if claims.name != body.name {
        return Err(bad_proof("it was made for another name"));
    }
    let unknown = |state: &AppState| match refuse(state, from) {
        ApiError::Unauthenticated => denied(EnrolmentDenied::UnknownToken),
        error => error,
    };
    let Ok(join_token) = OpaqueToken::parse(body.join_token.expose(), TokenKind::Join) else {
        return Err(unknown(&state));
    };
    let record = DelegateRecord {
        id: state.ids.typed(),
        name: body.name,
        tags: body.tags,
        public_key,
        key_since: now,
        next_key: None,
        revoked: false,
        version: None,
        inventory: None,
        last_seen: None,
        last_disconnect: None,
        epoch: Epoch(0),
        created: now,
    };
    let id = match state
        .store
        .enrol_delegate(join_token.hash().as_bytes(), &record, now)
        .await?
    {
        Enrolment::Enrolled(id) | Enrolment::Already(id) | Enrolment::Renewed(id) => id,
        Enrolment::Denied(EnrolmentDenied::UnknownToken) => return Err(unknown(&state)),
        Enrolment::Denied(reason) => return Err(denied(reason)),
    };
    state.orchestrator.delegate_changed(id).await?;
    tracing::info!(delegate = %id, name = %record.name, "Delegate enrolled");
    Ok((
        StatusCode::CREATED,
        Json(EnrolResponse {
            delegate: id,
            name: record.name,
        }),
    ))
}

fn bad_proof(why: &str) -> ApiError {
    ApiError::EnrolmentDenied {
        code: "bad_proof",
        why: format!("the proof does not hold: {why}"),
        hint: "check the delegate's `control_plane` URL and the clocks of both hosts",
    }
}

fn denied(reason: EnrolmentDenied) -> ApiError {
    let (code, hint) = match reason {
        EnrolmentDenied::UnknownToken => (
            "join_token_unknown",
            "make one with `gitspace join-token create`",
        ),
        EnrolmentDenied::Revoked => (
            "join_token_revoked",
            "make another with `gitspace join-token create`",
        ),
        EnrolmentDenied::Expired => (
            "join_token_expired",
            "make another with `gitspace join-token create`",
        ),
        EnrolmentDenied::UsedUp => (
            "join_token_used_up",
            "make another with `gitspace join-token create`",
        ),
        EnrolmentDenied::NameTaken => (
            "delegate_name_taken",
            "choose another name, or revoke that delegate first",
        ),
        EnrolmentDenied::NotForReturn => (
            "join_token_not_for_return",
            "choose another name; or, if it is that host that comes back, make a token with `gitspace join-token create --delegate NAME`",
        ),
        EnrolmentDenied::OtherDelegate => (
            "join_token_other_delegate",
            "make one for this host with `gitspace join-token create`",
        ),
        EnrolmentDenied::KeyTaken => (
            "delegate_key_taken",
            "delete the delegate's key, so that it makes its own: the host was cloned",
        ),
    };
    ApiError::EnrolmentDenied {
        code,
        why: reason.to_string(),
        hint,
    }
}
