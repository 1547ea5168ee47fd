//! A client's terminal modes (RFC 4254, section 8), as far as a Linux terminal has them.

use nix::sys::termios::{
    ControlFlags, InputFlags, LocalFlags, OutputFlags, SetArg, SpecialCharacterIndices as Index,
    Termios, tcgetattr, tcsetattr,
};
use russh::Pty;
use std::os::fd::OwnedFd;

/// A control character that does nothing.
const DISABLED: u32 = 255;

pub(super) fn apply(terminal: &OwnedFd, modes: &[(Pty, u32)]) {
    let changed = tcgetattr(terminal).and_then(|mut termios| {
        for (mode, value) in modes {
            set(&mut termios, *mode, *value);
        }
        tcsetattr(terminal, SetArg::TCSANOW, &termios)
    });
    if let Err(error) = changed {
        tracing::debug!(%error, "A terminal keeps its usual modes");
    }
}

fn set(termios: &mut Termios, mode: Pty, value: u32) {
    if let Some(index) = character(mode) {
        let byte = if value == DISABLED {
            // `_POSIX_VDISABLE` of Linux.
            0
        } else {
            u8::try_from(value).unwrap_or(0)
        };
        if let Some(place) = termios.control_chars.get_mut(index as usize) {
            *place = byte;
        }
        return;
    }
    let on = value != 0;
    if let Some(flag) = input(mode) {
        termios.input_flags.set(flag, on);
    } else if let Some(flag) = local(mode) {
        termios.local_flags.set(flag, on);
    } else if let Some(flag) = output(mode) {
        termios.output_flags.set(flag, on);
    } else if let Some(flag) = control(mode) {
        termios.control_flags.set(flag, on);
    }
}

fn character(mode: Pty) -> Option<Index> {
    Some(match mode {
        Pty::VINTR => Index::VINTR,
        Pty::VQUIT => Index::VQUIT,
        Pty::VERASE => Index::VERASE,
        Pty::VKILL => Index::VKILL,
        Pty::VEOF => Index::VEOF,
        Pty::VEOL => Index::VEOL,
        Pty::VEOL2 => Index::VEOL2,
        Pty::VSTART => Index::VSTART,
        Pty::VSTOP => Index::VSTOP,
        Pty::VSUSP => Index::VSUSP,
        Pty::VREPRINT => Index::VREPRINT,
        Pty::VWERASE => Index::VWERASE,
        Pty::VLNEXT => Index::VLNEXT,
        Pty::VDISCARD => Index::VDISCARD,
        _ => return None,
    })
}

fn input(mode: Pty) -> Option<InputFlags> {
    Some(match mode {
        Pty::IGNPAR => InputFlags::IGNPAR,
        Pty::PARMRK => InputFlags::PARMRK,
        Pty::INPCK => InputFlags::INPCK,
        Pty::ISTRIP => InputFlags::ISTRIP,
        Pty::INLCR => InputFlags::INLCR,
        Pty::IGNCR => InputFlags::IGNCR,
        Pty::ICRNL => InputFlags::ICRNL,
        Pty::IXON => InputFlags::IXON,
        Pty::IXANY => InputFlags::IXANY,
        Pty::IXOFF => InputFlags::IXOFF,
        Pty::IMAXBEL => InputFlags::IMAXBEL,
        Pty::IUTF8 => InputFlags::IUTF8,
        _ => return None,
    })
}

fn local(mode: Pty) -> Option<LocalFlags> {
    Some(match mode {
        Pty::ISIG => LocalFlags::ISIG,
        Pty::ICANON => LocalFlags::ICANON,
        Pty::ECHO => LocalFlags::ECHO,
        Pty::ECHOE => LocalFlags::ECHOE,
        Pty::ECHOK => LocalFlags::ECHOK,
        Pty::ECHONL => LocalFlags::ECHONL,
        Pty::NOFLSH => LocalFlags::NOFLSH,
        Pty::TOSTOP => LocalFlags::TOSTOP,
        Pty::IEXTEN => LocalFlags::IEXTEN,
        Pty::ECHOCTL => LocalFlags::ECHOCTL,
        Pty::ECHOKE => LocalFlags::ECHOKE,
        Pty::PENDIN => LocalFlags::PENDIN,
        _ => return None,
    })
}

fn output(mode: Pty) -> Option<OutputFlags> {
    Some(match mode {
        Pty::OPOST => OutputFlags::OPOST,
        Pty::ONLCR => OutputFlags::ONLCR,
        Pty::OCRNL => OutputFlags::OCRNL,
        Pty::ONOCR => OutputFlags::ONOCR,
        Pty::ONLRET => OutputFlags::ONLRET,
        _ => return None,
    })
}

fn control(mode: Pty) -> Option<ControlFlags> {
    Some(match mode {
        Pty::CS7 => ControlFlags::CS7,
        Pty::CS8 => ControlFlags::CS8,
        Pty::PARENB => ControlFlags::PARENB,
        Pty::PARODD => ControlFlags::PARODD,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_takes_the_modes_of_a_client() {
        let pair = nix::pty::openpty(None, None).unwrap();
        apply(
            &pair.slave,
            &[
                (Pty::ECHO, 0),
                (Pty::VERASE, 8),
                (Pty::VKILL, 255),
                (Pty::IXON, 0),
                (Pty::ONLCR, 0),
            ],
        );
        let termios = tcgetattr(&pair.slave).unwrap();
        assert!(!termios.local_flags.contains(LocalFlags::ECHO));
        assert!(termios.local_flags.contains(LocalFlags::ICANON));
        assert!(!termios.input_flags.contains(InputFlags::IXON));
        assert!(!termios.output_flags.contains(OutputFlags::ONLCR));
        assert_eq!(termios.control_chars[Index::VERASE as usize], 8);
        assert_eq!(termios.control_chars[Index::VKILL as usize], 0);
    }
}
