//! Finding devcontainer.json in a clone.
//!
//! The clone is hostile and lies in the sandbox, so a script there looks for the file, and refuses a link that leads out of the clone.
//! What it prints is checked here as anything else from outside.

use super::MAX_FILE;
use data_encoding::BASE64;
use wire::failure::{Failure, FailureCode};

/// Largest output of the script that is worth keeping: the file and the line before it, in base64.
pub(crate) const MAX_OUTPUT: usize = MAX_FILE / 3 * 4 + 16 * 1024;

/// The folder is its first argument. Prints one line of what it found, then the file; both in base64, so that no name or content can be
/// taken for anything else.
const SCRIPT: &str = r#"
root=$(readlink -f -- "$1") && cd -- "$root" || exit 3
say() { printf '%s ' "$1"; printf '%s' "$2" | base64 -w0; printf '\n'; }
found=
for file in .devcontainer/devcontainer.json .devcontainer.json; do
  if [ -e "$file" ] || [ -L "$file" ]; then found=$file; break; fi
done
if [ -z "$found" ]; then
  count=0; names=
  for file in .devcontainer/*/devcontainer.json; do
    if [ -e "$file" ] || [ -L "$file" ]; then
      count=$((count + 1)); found=$file
      if [ "$count" -le 20 ]; then names="$names $file"; fi
    fi
  done
  if [ "$count" -gt 1 ]; then say many "$names"; exit 0; fi
fi
if [ -z "$found" ]; then say none ''; exit 0; fi
real=$(readlink -f -- "$found") || { say dangling "$found"; exit 0; }
case "$real" in
  "$root"/*) ;;
  *) say outside "$found"; exit 0 ;;
esac
if [ ! -f "$real" ]; then say dangling "$found"; exit 0; fi
size=$(stat -c %s -- "$real") || exit 3
if [ "$size" -gt "$2" ]; then say large "$found"; exit 0; fi
say found "$found"
base64 -w0 -- "$real"
"#;

/// What to run in the sandbox.
pub(crate) fn argv(folder: &str) -> Vec<String> {
    ["sh", "-c", SCRIPT, "devcontainer", folder]
        .iter()
        .map(|&argument| argument.to_owned())
        .chain([MAX_FILE.to_string()])
        .collect()
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Located {
    /// Path in the clone, and text.
    Found { path: String, text: String },
    /// The repository has none: the default image is what it gets.
    None,
}

/// Reads what the script printed.
pub(crate) fn read(output: &str) -> Result<Located, Failure> {
    let strange = || {
        Failure::new(
            FailureCode::Internal,
            "cannot understand what was found in the clone",
        )
    };
    let (head, body) = output.split_once('\n').ok_or_else(strange)?;
    let (what, name) = head.split_once(' ').ok_or_else(strange)?;
    let name = decode(name).ok_or_else(strange)?;
    let name: String = String::from_utf8_lossy(&name)
        .chars()
        .filter(|c| !c.is_control())
        .take(1024)
        .collect();
    let invalid = |message: String| Failure::new(FailureCode::DevcontainerInvalid, message);
    match what {
        "none" => Ok(Located::None),
        "many" => Err(invalid(format!(
            "the repository has several dev containers:{name}"
        ))
        .hint("keep one of them, or put the one that is meant at `.devcontainer/devcontainer.json`")),
        "outside" => Err(invalid(format!("`{name}` is a link that leads out of the repository"))),
        "dangling" => Err(invalid(format!("`{name}` is not a file"))),
        "large" => Err(invalid(format!("`{name}` has more than {MAX_FILE} bytes"))),
        "found" => {
            let bytes = decode(body.trim_end()).ok_or_else(strange)?;
            if bytes.len() > MAX_FILE {
                return Err(invalid(format!("`{name}` has more than {MAX_FILE} bytes")));
            }
            let text = String::from_utf8(bytes)
                .map_err(|_| invalid(format!("`{name}` is not UTF-8 text")))?;
            Ok(Located::Found { path: name, text })
        }
        _ => Err(strange()),
    }
}

fn decode(text: &str) -> Option<Vec<u8>> {
    BASE64.decode(text.as_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn located(arrange: impl FnOnce(&std::path::Path)) -> Result<Located, Failure> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("clone")).unwrap();
        arrange(&dir.path().join("clone"));
        let argv = argv(dir.path().join("clone").to_str().unwrap());
        let output = std::process::Command::new(&argv[0])
            .args(&argv[1..])
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        read(&String::from_utf8(output.stdout).unwrap())
    }

    fn write(root: &std::path::Path, path: &str, text: &str) {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    #[test]
    fn a_clone_without_one_has_none() {
        assert_eq!(located(|_| {}).unwrap(), Located::None);
    }

    #[test]
    fn the_folder_goes_before_the_file_at_the_top() {
        let found = located(|root| {
            write(root, ".devcontainer/devcontainer.json", "{\"a\":1}\n");
            write(root, ".devcontainer.json", "{}");
        });
        assert_eq!(
            found.unwrap(),
            Located::Found {
                path: ".devcontainer/devcontainer.json".to_owned(),
                text: "{\"a\":1}\n".to_owned()
            }
        );
    }

    #[test]
    fn exactly_one_of_the_folders_below_is_taken() {
        let found = located(|root| write(root, ".devcontainer/a b/devcontainer.json", "{}"));
        assert!(
            matches!(found, Ok(Located::Found { path, .. }) if path == ".devcontainer/a b/devcontainer.json")
        );
        let failure = located(|root| {
            write(root, ".devcontainer/a/devcontainer.json", "{}");
            write(root, ".devcontainer/b/devcontainer.json", "{}");
        })
        .unwrap_err();
        assert!(failure.message.contains(".devcontainer/b/"), "{failure}");
    }

    #[test]
    fn a_link_out_of_the_clone_is_refused() {
        let failure = located(|root| {
            std::os::unix::fs::symlink("/etc/passwd", root.join(".devcontainer.json")).unwrap();
        })
        .unwrap_err();
        assert!(failure.message.contains("leads out"), "{failure}");
        let failure = located(|root| {
            std::os::unix::fs::symlink("/etc", root.join(".devcontainer")).unwrap();
            std::os::unix::fs::symlink("../..", root.join(".devcontainer.json")).unwrap();
        })
        .unwrap_err();
        assert!(failure.message.contains("leads out"), "{failure}");
    }

    #[test]
    fn a_huge_file_is_refused() {
        let failure = located(|root| {
            write(root, ".devcontainer.json", &" ".repeat(MAX_FILE + 1));
        })
        .unwrap_err();
        assert!(failure.message.contains("more than"), "{failure}");
    }
}
