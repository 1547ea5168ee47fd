//! `ssh-key`.

use super::Context;
use crate::{api::Object, args::SshKeyCommand, error::CliError, text};
use camino::Utf8Path;
use std::io::{self, IsTerminal as _, Read as _};
use wire::{
    api::{CreateSshKey, SshKey},
    secret::Secret,
    text::SshPublicKey,
};

/// More than any key: what is longer is something else, and is not read to its end.
const MAX_FILE: u64 = 64 * 1024;

pub(super) async fn ssh_key(context: &Context, args: SshKeyCommand) -> Result<(), CliError> {
    match args {
        SshKeyCommand::Add { file, name } => {
            let body = CreateSshKey {
                name,
                key: read_public(&file)?,
            };
            let key: Object<SshKey> = context.api.post("/ssh-keys", &body).await?;
            keys(context, &key, std::slice::from_ref(&key))
        }
        SshKeyCommand::List => {
            let all: Vec<Object<SshKey>> = context.api.list("/ssh-keys").await?;
            keys(context, &all, &all)
        }
        SshKeyCommand::Delete { id } => {
            context.api.delete(&format!("/ssh-keys/{id}")).await?;
            Ok(())
        }
    }
}

/// The public key in `file`. It is checked here, so that a private one never leaves this host.
fn read_public(file: &Utf8Path) -> Result<Secret, CliError> {
    let (from, name) = if file == "-" {
        if io::stdin().is_terminal() {
            return Err(CliError::usage(
                "there is no SSH key on stdin",
                "name its file, as `gitspace ssh-key add ~/.ssh/id_ed25519.pub`",
            ));
        }
        (
            read(io::stdin().lock()),
            "the SSH key from stdin".to_owned(),
        )
    } else {
        let opened = std::fs::File::open(file).and_then(read);
        (opened, format!("the SSH key in `{file}`"))
    };
    let text = from.map_err(|source| CliError::Input {
        what: name.clone(),
        source,
    })?;
    match SshPublicKey::parse_line(&text) {
        Ok((key, comment)) => Ok(Secret::new(
            format!("{key} {comment}").trim_end().to_owned(),
        )),
        Err(error) => Err(CliError::usage(
            format!("{name} is not taken: {error}"),
            error.hint(),
        )),
    }
}

fn read(from: impl io::Read) -> io::Result<String> {
    let mut bytes = Vec::new();
    from.take(MAX_FILE).read_to_end(&mut bytes)?;
    // What is not text is no key, and is refused as that.
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn keys<T: serde::Serialize>(
    context: &Context,
    json: &T,
    keys: &[Object<SshKey>],
) -> Result<(), CliError> {
    context.out.show(json, || {
        let now = context.clock.now();
        let rows: Vec<_> = keys
            .iter()
            .map(|key| {
                let it = &key.it;
                let used = it.last_used.map(|time| text::relative(time, now));
                vec![
                    it.id.to_string(),
                    it.name.clone(),
                    it.key_type.clone(),
                    it.fingerprint.clone(),
                    used.unwrap_or_default(),
                ]
            })
            .collect();
        Ok(text::table(
            &["ID", "NAME", "TYPE", "FINGERPRINT", "LAST USED"],
            &rows,
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_private_key_is_refused_before_anything_is_sent() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("id_ed25519");
        let file = Utf8Path::from_path(&path).unwrap();
        std::fs::write(
            file,
            "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjE=\n",
        )
        .unwrap();
        let error = read_public(file).unwrap_err().to_string();
        assert!(error.contains("it is a private key"), "{error}");
        assert!(!error.contains("b3Bl"), "{error}");
        let key =
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPe2uGPLYg8zQVXu9Tq1UkcB4GVy1xZ3YtUAZwzPyE1o me\n";
        std::fs::write(file, key).unwrap();
        assert_eq!(read_public(file).unwrap().expose(), key.trim_end());
        std::fs::write(file, [0xff, 0xfe, 0]).unwrap();
        read_public(file).unwrap_err();
    }
}
