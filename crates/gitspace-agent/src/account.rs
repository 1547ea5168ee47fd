//! Users of the image, read from its own `/etc/passwd` and `/etc/group`.
//!
//! A static binary has no name service, and an image may have neither file: numeric ids and `root` work without them.

use camino::Utf8Path;
use std::{fs::File, io::Read as _};

/// More than any image has; a hostile one shall not fill our memory.
const MAX_FILE: u64 = 4 * 1024 * 1024;
/// `NGROUPS_MAX` is 65536; nobody has as many.
const MAX_GROUPS: usize = 1024;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AccountError {
    #[error("the user `{0}` is not in the image's /etc/passwd")]
    NoUser(String),
    #[error("the group `{0}` is not in the image's /etc/group")]
    NoGroup(String),
    #[error("the user `{0}` is neither a name nor `uid[:gid]`")]
    Syntax(String),
}

/// Whom a process runs as.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Account {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
    pub(crate) name: String,
    pub(crate) home: String,
    /// As the passwd file says; it may not exist.
    pub(crate) shell: Option<String>,
}

/// The two files, in memory.
#[derive(Clone, Debug, Default)]
pub(crate) struct Accounts {
    passwd: String,
    group: String,
}

impl Accounts {
    /// Files that are missing count as empty.
    pub(crate) fn read() -> Self {
        Self {
            passwd: read(Utf8Path::new("/etc/passwd")),
            group: read(Utf8Path::new("/etc/group")),
        }
    }

    /// `name`, `uid`, or either with `:group`.
    pub(crate) fn resolve(&self, user: &str) -> Result<Account, AccountError> {
        let (user, group) = match user.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (user, None),
        };
        if user.is_empty() || group == Some("") {
            return Err(AccountError::Syntax(user.to_owned()));
        }
        let by_name = self.users().find(|entry| entry.name == user);
        let entry = by_name.or_else(|| {
            let uid: u32 = user.parse().ok()?;
            self.users().find(|entry| entry.uid == uid)
        });
        let mut account = match (entry, user) {
            (Some(entry), _) => Account {
                uid: entry.uid,
                gid: entry.gid,
                groups: self.groups_of(entry.name, entry.gid),
                name: entry.name.to_owned(),
                home: entry.home.to_owned(),
                shell: Some(entry.shell.to_owned()).filter(|shell| !shell.is_empty()),
            },
            (None, "root" | "0") => Self::unnamed(0, "root", "/root"),
            (None, number) => match number.parse() {
                Ok(uid) => Self::unnamed(uid, number, "/"),
                Err(_) => return Err(AccountError::NoUser(number.to_owned())),
            },
        };
        if let Some(group) = group {
            account.gid = match group.parse() {
                Ok(gid) => gid,
                Err(_) => self
                    .groups()
                    .find(|(name, _, _)| *name == group)
                    .map(|(_, gid, _)| gid)
                    .ok_or_else(|| AccountError::NoGroup(group.to_owned()))?,
            };
        }
        if account.home.is_empty() {
            "/".clone_into(&mut account.home);
        }
        Ok(account)
    }

    /// Docker does the same: an id that nobody has gets its own group 0.
    fn unnamed(uid: u32, name: &str, home: &str) -> Account {
        Account {
            uid,
            gid: 0,
            groups: Vec::new(),
            name: name.to_owned(),
            home: home.to_owned(),
            shell: None,
        }
    }

    fn users(&self) -> impl Iterator<Item = Entry<'_>> {
        self.passwd.lines().filter_map(Entry::parse)
    }

    fn groups(&self) -> impl Iterator<Item = (&str, u32, &str)> {
        self.group.lines().filter_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            let gid = fields.nth(1)?.parse().ok()?;
            Some((name, gid, fields.next().unwrap_or_default()))
        })
    }

    fn groups_of(&self, user: &str, primary: u32) -> Vec<u32> {
        let mut groups: Vec<u32> = self
            .groups()
            .filter(|(_, _, members)| members.split(',').any(|member| member == user))
            .map(|(_, gid, _)| gid)
            .chain([primary])
            .collect();
        groups.sort_unstable();
        groups.dedup();
        groups.truncate(MAX_GROUPS);
        groups
    }
}

struct Entry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
    shell: &'a str,
}

impl<'a> Entry<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        let home = fields.nth(1).unwrap_or_default();
        Some(Self {
            name,
            uid,
            gid,
            home,
            shell: fields.next().unwrap_or_default(),
        })
    }
}

fn read(path: &Utf8Path) -> String {
    let mut bytes = Vec::new();
    match File::open(path).and_then(|file| file.take(MAX_FILE).read_to_end(&mut bytes)) {
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => tracing::warn!(%error, %path, "Cannot read the image's users"),
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accounts() -> Accounts {
        Accounts {
            passwd: "root:x:0:0:root:/root:/bin/bash\n# nonsense\n\ndev:x:1000:1001:Dev,,,:/home/dev:/bin/zsh\nbare:x:5:5::\n".to_owned(),
            group: "root:x:0:\ndocker:x:998:other,dev\nsudo:x:27:dev\n".to_owned(),
        }
    }

    #[test]
    fn a_user_is_found_by_name_and_by_number_with_its_groups() {
        let dev = accounts().resolve("dev").unwrap();
        assert_eq!(
            (dev.uid, dev.gid, dev.groups.as_slice()),
            (1000, 1001, &[27, 998, 1001][..])
        );
        assert_eq!(
            (dev.home.as_str(), dev.shell.as_deref()),
            ("/home/dev", Some("/bin/zsh"))
        );
        assert_eq!(accounts().resolve("1000").unwrap(), dev);
    }

    #[test]
    fn a_group_can_be_named_beside_the_user() {
        assert_eq!(accounts().resolve("dev:docker").unwrap().gid, 998);
        assert_eq!(accounts().resolve("4242:4343").unwrap().gid, 4343);
        assert_eq!(
            accounts().resolve("dev:none").unwrap_err(),
            AccountError::NoGroup("none".to_owned())
        );
    }

    #[test]
    fn an_image_without_users_still_has_root_and_numbers() {
        let none = Accounts::default();
        assert_eq!(none.resolve("root").unwrap().uid, 0);
        assert_eq!(none.resolve("1234").unwrap().uid, 1234);
        assert_eq!(
            none.resolve("vscode").unwrap_err(),
            AccountError::NoUser("vscode".to_owned())
        );
        assert_eq!(accounts().resolve("bare").unwrap().home, "/");
    }

    #[test]
    fn nonsense_is_no_user() {
        for user in ["", ":", "dev:", ":0", "-1", "4294967296"] {
            assert!(accounts().resolve(user).is_err(), "{user}");
        }
    }
}
