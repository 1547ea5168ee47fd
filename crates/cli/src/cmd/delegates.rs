//! `delegate`, `machine`, `join-token`.

use super::{Context, access::once};
use crate::{
    api::{Object, segment},
    args::{DelegateCommand, JoinTokenCommand, MachineCommand},
    error::CliError,
    text,
};
use jiff::Timestamp;
use wire::{
    api::{CreateJoinToken, DataPath, Delegate, JoinToken, Machine, UnaccountedGitspace},
    control::{Inventory, ProbeReport},
    gitspace::ObservedState,
};

pub(super) async fn delegate(context: &Context, args: &DelegateCommand) -> Result<(), CliError> {
    match args {
        DelegateCommand::List => list(context).await,
        DelegateCommand::Show { name } => show(context, name).await,
        DelegateCommand::Revoke { name } => {
            let path = format!("/delegates/{}", segment(name));
            context.api.delete(&path).await?;
            context.out.note(
                "revoked; to let the host in again: `gitspace join-token create --delegate NAME`, and there `delegate-agent enroll --again`",
            );
            Ok(())
        }
        DelegateCommand::Probe { name } => probe(context, name).await,
        DelegateCommand::RemoveUnaccounted { name, gitspace } => {
            let path = format!(
                "/delegates/{}/unaccounted-gitspaces/{gitspace}",
                segment(name)
            );
            context.api.delete(&path).await?;
            context
                .out
                .note("ordered; `gitspace delegate show` lists it until it is gone");
            Ok(())
        }
    }
}

async fn probe(context: &Context, name: &str) -> Result<(), CliError> {
    let path = format!("/delegates/{}/probe", segment(name));
    let report: Object<ProbeReport> = context.api.post(&path, &serde_json::Value::Null).await?;
    context.out.show(&report, || Ok(report.it.to_string()))?;
    match report.it.broken_at() {
        None => Ok(()),
        Some(broken) => Err(CliError::Broken {
            delegate: name.to_owned(),
            hop: broken.hop,
        }),
    }
}

async fn show(context: &Context, name: &str) -> Result<(), CliError> {
    let path = format!("/delegates/{}", segment(name));
    let delegate: Object<Delegate> = context.api.get(&path).await?;
    context
        .out
        .show(&delegate, || Ok(details(&delegate.it, context.clock.now())))
}

fn details(it: &Delegate, now: Timestamp) -> String {
    let optional = |text: Option<String>| text.unwrap_or_default();
    let cloned = it.cloned.as_ref().map(|cloned| {
        format!(
            "two processes have its identity, on {}; last seen {}",
            cloned.hosts.join(" and "),
            text::relative(cloned.seen, now)
        )
    });
    let key = it.key.as_ref().map(|key| {
        let next = match &key.next {
            Some(next) => format!("; {next} is to take its place"),
            None => String::new(),
        };
        format!(
            "{}, since {}{next}",
            key.fingerprint,
            text::relative(key.since, now)
        )
    });
    let inventory = it.inventory.as_ref();
    let host = inventory.map(|inventory| {
        format!(
            "{} ({}, {})",
            inventory.hostname, inventory.os, inventory.arch
        )
    });
    let mut out = text::fields(&[
        ("name", it.name.clone()),
        ("id", it.id.to_string()),
        ("state", delegate_state(it, now)),
        ("key", optional(key)),
        ("cloned", optional(cloned)),
        (
            "last disconnect",
            optional(it.last_disconnect.as_ref().map(ToString::to_string)),
        ),
        (
            "refused",
            optional(it.last_refused.as_ref().map(|refused| {
                format!(
                    "{}: {}: {}",
                    text::relative(refused.at, now),
                    refused.code,
                    refused.reason
                )
            })),
        ),
        (
            "last seen",
            optional(it.last_seen.map(|time| text::relative(time, now))),
        ),
        (
            "data path",
            optional(it.data_path.as_ref().map(|path| data_path(path, now))),
        ),
        (
            "rotation",
            optional(it.out_of_rotation.as_ref().map(|why| format!("out: {why}"))),
        ),
        ("tags", it.tags.join(",")),
        ("gitspaces", it.gitspaces.to_string()),
        ("host", optional(host)),
        ("capacity", optional(inventory.map(capacity))),
        (
            "docker",
            optional(inventory.and_then(|inventory| inventory.docker_version.clone())),
        ),
        ("version", optional(it.version.clone())),
        ("created", text::relative(it.created, now)),
    ]);
    if !it.unaccounted_gitspaces.is_empty() {
        out.push_str("\nUnaccounted for: no record here says what they are, so they are kept.\n");
        out.push_str(&unaccounted(&it.unaccounted_gitspaces, now));
    }
    out
}

fn data_path(path: &DataPath, now: Timestamp) -> String {
    let probed = text::relative(path.at, now);
    let since = text::relative(path.since, now);
    let report = &path.report;
    if let Some(hop) = path.broken_at {
        return format!("broken at `{hop}` since {since}; probed {probed}");
    }
    if let Some(old) = report.unsupported_at() {
        return format!("not known: the {} cannot be probed", old.hop);
    }
    let mut words = format!("whole since {since}; probed {probed}");
    if report.silent_agents > 0 {
        words.push_str(&format!(
            "; {} of {} agents do not answer",
            report.silent_agents, report.agents
        ));
    }
    words
}

fn unaccounted(gitspaces: &[UnaccountedGitspace], now: Timestamp) -> String {
    let rows: Vec<_> = gitspaces
        .iter()
        .map(|held| {
            let state = match held.state {
                ObservedState::Absent => "absent",
                ObservedState::Provisioned => "provisioned",
                ObservedState::Stopped => "stopped",
                ObservedState::Running => "running",
            };
            vec![
                held.id.to_string(),
                if held.removing {
                    format!("{state}, being removed")
                } else {
                    state.to_owned()
                },
                text::relative(held.since, now),
            ]
        })
        .collect();
    text::table(&["GITSPACE", "STATE", "SINCE"], &rows)
}

fn capacity(inventory: &Inventory) -> String {
    format!(
        "{} CPU, {}",
        text::cpus(inventory.capacity.cpu_millis),
        text::bytes(inventory.capacity.memory_bytes)
    )
}

async fn list(context: &Context) -> Result<(), CliError> {
    let delegates: Vec<Object<Delegate>> = context.api.list("/delegates").await?;
    context.out.show(&delegates, || {
        let now = context.clock.now();
        let rows: Vec<_> = delegates
            .iter()
            .map(|delegate| {
                let it = &delegate.it;
                let seen = match it.last_seen {
                    Some(time) if !it.connected => text::relative(time, now),
                    _ => String::new(),
                };
                vec![
                    it.name.clone(),
                    delegate_state(it, now),
                    it.tags.join(","),
                    it.gitspaces.to_string(),
                    it.inventory.as_ref().map(capacity).unwrap_or_default(),
                    it.version.clone().unwrap_or_default(),
                    seen,
                ]
            })
            .collect();
        Ok(text::table(
            &[
                "NAME",
                "STATE",
                "TAGS",
                "GITSPACES",
                "CAPACITY",
                "VERSION",
                "LAST SEEN",
            ],
            &rows,
        ))
    })
}

fn delegate_state(it: &Delegate, now: Timestamp) -> String {
    // What keeps it away is at hand where it dials.
    let refused = it.last_refused.as_ref().map(|refused| {
        format!(
            "refused {}: {}",
            text::relative(refused.at, now),
            refused.code
        )
    });
    if it.revoked {
        return match refused {
            Some(refused) => format!("revoked, {refused}"),
            None => "revoked".to_owned(),
        };
    }
    if !it.connected {
        return match (refused, &it.last_disconnect) {
            (Some(refused), _) => format!("away, {refused}{}", clone_of(it)),
            (None, Some(why)) => format!("away: {why}{}", clone_of(it)),
            (None, None) => "away".to_owned(),
        };
    }
    let mut state = "connected".to_owned();
    if it.draining {
        state.push_str(", draining");
    }
    if !it.runner_ready {
        state.push_str(", runner not ready");
    }
    match (&it.out_of_rotation, it.suspect_until) {
        (Some(why), _) => state.push_str(&format!(", out of the rotation: {why}")),
        // Of an older control plane.
        (None, Some(_)) => {
            state.push_str(&format!(", failed its last {} starts", it.failed_starts));
        }
        (None, None) => {}
    }
    if let Some(path) = &it.data_path
        && path.report.silent_agents > 0
    {
        state.push_str(&format!(", {} silent agents", path.report.silent_agents));
    }
    if !it.unaccounted_gitspaces.is_empty() {
        let count = it.unaccounted_gitspaces.len();
        state.push_str(&format!(", {count} unaccounted for"));
    }
    state.push_str(&clone_of(it));
    state
}

/// What an operator has to see of a delegate that exists twice.
fn clone_of(it: &Delegate) -> String {
    match &it.cloned {
        Some(cloned) => format!(", CLONED ({})", cloned.hosts.join(", ")),
        None => String::new(),
    }
}

pub(super) async fn machine(context: &Context, args: &MachineCommand) -> Result<(), CliError> {
    let MachineCommand::List = args;
    let machines: Vec<Object<Machine>> = context.api.list("/machines").await?;
    context.out.show(&machines, || {
        let rows: Vec<_> = machines
            .iter()
            .map(|machine| {
                let it = &machine.it;
                vec![
                    it.name.clone(),
                    text::cpus(it.resources.cpu_millis),
                    text::bytes(it.resources.memory_bytes),
                    it.resources.pids.to_string(),
                    if it.is_default { "yes" } else { "" }.to_owned(),
                ]
            })
            .collect();
        Ok(text::table(
            &["NAME", "CPU", "MEMORY", "PROCESSES", "DEFAULT"],
            &rows,
        ))
    })
}

pub(super) async fn join_token(context: &Context, args: JoinTokenCommand) -> Result<(), CliError> {
    match args {
        JoinTokenCommand::Create {
            uses,
            expires,
            comment,
            delegate,
        } => {
            let body = CreateJoinToken {
                expires_in: expires,
                uses,
                comment,
                delegate,
            };
            let token: Object<JoinToken> = context.api.post("/join-tokens", &body).await?;
            once(
                context,
                &token,
                token.it.token.as_ref(),
                &format!(
                    "good for {} until {:.0}; shown this once",
                    if token.it.uses_left == 1 {
                        "one delegate".to_owned()
                    } else {
                        format!("{} delegates", token.it.uses_left)
                    },
                    token.it.exp
                ),
            )
        }
        JoinTokenCommand::List => {
            let tokens: Vec<Object<JoinToken>> = context.api.list("/join-tokens").await?;
            context.out.show(&tokens, || {
                let now = context.clock.now();
                let rows: Vec<_> = tokens
                    .iter()
                    .map(|token| {
                        let it = &token.it;
                        vec![
                            it.id.to_string(),
                            if it.revoked { "revoked" } else { "" }.to_owned(),
                            it.uses_left.to_string(),
                            text::relative(it.exp, now),
                            it.comment.clone().unwrap_or_default(),
                        ]
                    })
                    .collect();
                Ok(text::table(
                    &["ID", "STATE", "USES LEFT", "EXPIRES", "COMMENT"],
                    &rows,
                ))
            })
        }
        JoinTokenCommand::Revoke { id } => {
            context.api.delete(&format!("/join-tokens/{id}")).await?;
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delegate_shows_its_last_disconnect_by_its_code_and_its_clone() {
        let delegate: Delegate = serde_json::from_value(serde_json::json!({
            "id": "0198c0de-0000-7000-8000-000000000001", "name": "host-1", "tags": [], "connected": false,
            "draining": false, "runner_ready": false, "revoked": false, "gitspaces": 3,
            "last_disconnect": {"code": "silence", "reason": "nothing was heard for 30000 ms"},
            "cloned": {"hosts": ["a", "b"], "seen": "2026-01-01T00:00:00Z"},
            "created": "2026-01-01T00:00:00Z"
        }))
        .expect("reads");
        let shown = details(&delegate, delegate.created);
        for wanted in [
            "away: silence: nothing was heard for 30000 ms, CLONED (a, b)",
            "last disconnect:  silence: nothing",
            "two processes have its identity, on a and b",
        ] {
            assert!(shown.contains(wanted), "no `{wanted}` in\n{shown}");
        }
    }

    #[test]
    fn a_host_that_is_away_shows_that_it_was_refused_and_why() {
        let mut delegate: Delegate = serde_json::from_value(serde_json::json!({
            "id": "0198c0de-0000-7000-8000-000000000001", "name": "host-1", "tags": [], "connected": false,
            "draining": false, "runner_ready": false, "revoked": false, "gitspaces": 3,
            "last_disconnect": {"code": "silence", "reason": "nothing was heard for 30000 ms"},
            "last_refused": {"code": "superseded_key", "reason": "an old copy", "at": "2026-01-01T00:00:00Z"},
            "created": "2026-01-01T00:00:00Z"
        }))
        .expect("reads");
        let now = delegate.created;
        assert!(delegate_state(&delegate, now).starts_with("away, refused "));
        let shown = details(&delegate, now);
        assert!(shown.contains("superseded_key: an old copy"), "{shown}");
        delegate.revoked = true;
        assert!(delegate_state(&delegate, now).starts_with("revoked, refused "));
    }
}
