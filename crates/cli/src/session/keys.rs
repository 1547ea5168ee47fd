//! `~.` at the start of a line leaves a shell; `~~` is one `~`. As ssh does it. Pure.

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    LineStart,
    /// A `~` is held back.
    Tilde,
    Inside,
}

#[derive(Debug, Default)]
pub(super) struct Keys {
    state: State,
}

impl Keys {
    /// Appends to `out` what is for the shell. True where the user leaves; what follows is dropped.
    pub(super) fn feed(&mut self, typed: &[u8], out: &mut Vec<u8>) -> bool {
        for &byte in typed {
            self.state = match (self.state, byte) {
                (State::LineStart, b'~') => State::Tilde,
                (State::Tilde, b'.') => return true,
                (State::Tilde, b'~') => {
                    out.push(b'~');
                    State::Inside
                }
                (state, byte) => {
                    if state == State::Tilde {
                        out.push(b'~');
                    }
                    out.push(byte);
                    if matches!(byte, b'\r' | b'\n') {
                        State::LineStart
                    } else {
                        State::Inside
                    }
                }
            };
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(pieces: &[&[u8]]) -> (Vec<u8>, bool) {
        let (mut keys, mut out) = (Keys::default(), Vec::new());
        let left = pieces.iter().any(|piece| keys.feed(piece, &mut out));
        (out, left)
    }

    #[test]
    fn a_tilde_and_a_dot_leave_only_at_the_start_of_a_line() {
        assert_eq!(feed(&[b"~."]), (b"".to_vec(), true));
        assert_eq!(feed(&[b"ls\r", b"~", b".x"]), (b"ls\r".to_vec(), true));
        assert_eq!(feed(&[b"cd ~.\r"]), (b"cd ~.\r".to_vec(), false));
        assert_eq!(feed(&[b"\r~~."]), (b"\r~.".to_vec(), false));
        assert_eq!(feed(&[b"~/bin\r"]), (b"~/bin\r".to_vec(), false));
        assert_eq!(feed(&[b"~\r~."]), (b"~\r".to_vec(), true));
    }
}
