//! Which variables of a client its processes get.

/// More than any client sends.
pub(super) const MAX_VARIABLES: usize = 64;
const MAX_VALUE: usize = 4096;

/// Names that say how a person's terminal is set up, and what git negotiates its protocol with. What changes how programs are loaded or found
/// is the gitspace's own matter.
const NAMES: &[&str] = &[
    "LANG",
    "LANGUAGE",
    "TZ",
    "COLORTERM",
    "NO_COLOR",
    "TERM_PROGRAM",
    "TERM_PROGRAM_VERSION",
    "GIT_PROTOCOL",
];
const PREFIXES: &[&str] = &["LC_"];

pub(super) fn is_taken(name: &str, value: &str) -> bool {
    let known = NAMES.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix));
    known && crate::environment::is_name(name) && value.len() <= MAX_VALUE && !value.contains('\0')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_describes_a_terminal_is_taken_and_what_loads_code_is_not() {
        for name in ["LANG", "LC_ALL", "COLORTERM", "GIT_PROTOCOL"] {
            assert!(is_taken(name, "x"), "{name}");
        }
        for name in ["LD_PRELOAD", "PATH", "BASH_ENV", "lc_all", "", "LC_A=B"] {
            assert!(!is_taken(name, "x"), "{name}");
        }
        assert!(!is_taken("LANG", "a\0b"));
        assert!(!is_taken("LANG", &"x".repeat(MAX_VALUE + 1)));
    }
}
