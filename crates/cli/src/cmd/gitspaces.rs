//! `create`, `list`, `show` and the actions.

use super::Context;
use crate::{
    api::Object,
    args::{Action, Create},
    error::CliError,
    output::Format,
    progress::{self, Goal, path_of},
    text,
};
use wire::{
    api::{ActionRequest, CreateGitspace, Gitspace, GitspaceAction},
    gitspace::{GitspaceState, RepoSpec},
};

pub(super) async fn create(context: &Context, args: Create) -> Result<(), CliError> {
    let request = CreateGitspace {
        repo: RepoSpec {
            url: args.repository,
            reference: args.branch,
        },
        name: args.name,
        machine: args.machine,
        start: true,
    };
    let made: Object<Gitspace> = context.api.post("/gitspaces", &request).await?;
    if args.no_wait && !args.wait {
        return one(context, &made);
    }
    let goal = Goal::State(GitspaceState::Running);
    match progress::wait(&context.api, made, goal, 0).await? {
        Some(gitspace) => one(context, &gitspace),
        None => Ok(()),
    }
}

pub(super) async fn list(context: &Context) -> Result<(), CliError> {
    let gitspaces: Vec<Object<Gitspace>> = context.api.list("/gitspaces").await?;
    context.out.show(&gitspaces, || {
        let now = context.clock.now();
        let rows: Vec<_> = gitspaces
            .iter()
            .map(|gitspace| {
                let it = &gitspace.it;
                vec![
                    it.name.to_string(),
                    state(it),
                    it.owner.clone(),
                    it.repo.url.to_string(),
                    it.machine.clone(),
                    it.delegate.clone().unwrap_or_default(),
                    text::relative(it.updated, now),
                ]
            })
            .collect();
        Ok(text::table(
            &[
                "NAME",
                "STATE",
                "OWNER",
                "REPOSITORY",
                "MACHINE",
                "DELEGATE",
                "CHANGED",
            ],
            &rows,
        ))
    })
}

pub(super) async fn show(context: &Context, name: &str) -> Result<(), CliError> {
    let gitspace: Object<Gitspace> = context.api.get(&path_of(name)).await?;
    context
        .out
        .show(&gitspace, || Ok(details(&gitspace.it, context.clock.now())))
}

pub(super) async fn act(
    context: &Context,
    args: &Action,
    action: GitspaceAction,
) -> Result<(), CliError> {
    let path = path_of(&args.name);
    let goal = match action {
        GitspaceAction::Start => Goal::State(GitspaceState::Running),
        GitspaceAction::Stop => Goal::State(GitspaceState::Stopped),
        GitspaceAction::Reset => Goal::State(GitspaceState::Uninitialized),
        GitspaceAction::Cancel => Goal::Rest,
        GitspaceAction::Delete => Goal::Gone,
    };
    let body = ActionRequest { action };
    // An action that is under way already has events of before, which would read as what came of this one.
    let after = if args.wait {
        progress::last_event(&context.api, &path).await?
    } else {
        0
    };
    let gitspace: Object<Gitspace> = context.api.post(&format!("{path}/actions"), &body).await?;
    if !args.wait {
        return one(context, &gitspace);
    }
    match progress::wait(&context.api, gitspace, goal, after).await? {
        Some(gitspace) => one(context, &gitspace),
        None => match context.out.format {
            Format::Text => context
                .out
                .raw(&format!("{}  deleted\n", text::line(&args.name))),
            // There is no object any more.
            Format::Json => Ok(()),
        },
    }
}

/// What a command that changed it ends with: name, state, URL.
fn one(context: &Context, gitspace: &Object<Gitspace>) -> Result<(), CliError> {
    context.out.show(gitspace, || {
        let it = &gitspace.it;
        let url = if it.reachable { it.url.as_str() } else { "" };
        let line = format!("{}  {}  {}", it.name, state(it), text::line(url));
        Ok(format!("{}\n", line.trim_end()))
    })
}

fn state(gitspace: &Gitspace) -> String {
    let mut state = gitspace.state.to_string();
    if let (Some(phase), true) = (gitspace.phase, gitspace.state.is_busy()) {
        state = format!("{state} ({})", phase.as_str());
    }
    if gitspace.delegate.is_some() && !gitspace.delegate_connected {
        state.push_str(", delegate away");
    }
    state
}

fn details(it: &Gitspace, now: jiff::Timestamp) -> String {
    let reference = it.repo.reference.as_ref();
    let container = it.dev_container.as_ref();
    let actions: Vec<&str> = it
        .actions
        .iter()
        .map(|action| match action {
            GitspaceAction::Start => "start",
            GitspaceAction::Stop => "stop",
            GitspaceAction::Reset => "reset",
            GitspaceAction::Cancel => "cancel",
            GitspaceAction::Delete => "delete",
        })
        .collect();
    let resources = format!(
        "{} CPU, {}, {} processes",
        text::cpus(it.resources.cpu_millis),
        text::bytes(it.resources.memory_bytes),
        it.resources.pids
    );
    let mut out = text::fields(&[
        ("name", it.name.to_string()),
        ("id", it.id.to_string()),
        ("state", state(it)),
        ("owner", it.owner.clone()),
        ("repository", it.repo.url.to_string()),
        (
            "ref",
            reference.map(ToString::to_string).unwrap_or_default(),
        ),
        ("machine", format!("{} ({resources})", it.machine)),
        ("delegate", it.delegate.clone().unwrap_or_default()),
        (
            "image",
            container.map(|c| c.image.clone()).unwrap_or_default(),
        ),
        (
            "user",
            container.map(|c| c.remote_user.clone()).unwrap_or_default(),
        ),
        (
            "folder",
            container
                .map(|c| c.workspace_folder.clone())
                .unwrap_or_default(),
        ),
        ("url", it.url.clone()),
        ("created", text::relative(it.created, now)),
        ("changed", text::relative(it.updated, now)),
        ("actions", actions.join(", ")),
    ]);
    let troubles = [("error", &it.error), ("trouble", &it.trouble)];
    for (name, failure) in troubles {
        let Some(failure) = failure else { continue };
        out.push_str(&text::fields(&[(name, failure.message.clone())]));
        if let Some(detail) = &failure.detail {
            crate::error::indented(&mut out, detail);
        }
        if let Some(hint) = &failure.hint {
            out.push_str(&text::fields(&[("hint", hint.clone())]));
        }
    }
    out
}
