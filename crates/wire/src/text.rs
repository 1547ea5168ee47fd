//! Checked text: what users and remote parties write and what then reaches a command line, a path or a host name.
//!
//! Each type is made by `TryFrom<String>` alone (serde included), so holding one is the proof that it was checked.

mod git;
mod name;
mod ssh_key;

pub use git::{GitRef, GitRefError, MAX_REF, MAX_URL, RepoUrl, RepoUrlError};
pub use name::{GitspaceName, MAX_NAME, MAX_SLUG, NameError, Slug};
pub use ssh_key::{MAX_SSH_KEY, SshKeyError, SshPublicKey};

/// `Serialize` as the text, `Deserialize` through `TryFrom<String>`, `Display`, `FromStr`, `AsRef<str>`.
macro_rules! checked_text {
    ($type:ident, $error:ident) => {
        impl $type {
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(&self.0)
            }
        }
        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
        impl std::str::FromStr for $type {
            type Err = $error;
            fn from_str(text: &str) -> Result<Self, $error> {
                Self::try_from(text.to_owned())
            }
        }
        impl From<$type> for String {
            fn from(checked: $type) -> Self {
                checked.0
            }
        }
    };
}
pub(crate) use checked_text;
