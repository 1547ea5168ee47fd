//! A client's terminal modes (RFC 4254, section 8), as far as a Linux terminal has them.

use nix::sys::termios::{
    ControlFlags, InputFlags, LocalFlags, OutputFlags, SetArg, SpecialCharacterIndices as Index,
    Termios, tcgetattr, tcsetattr,
};
use ssh_transport::Reader;
use std::os::fd::OwnedFd;

/// A control character that does nothing.
const DISABLED: u32 = 255;

/// `wanted` are pairs of an opcode and a number, up to the opcode 0 or one that is none of these.
pub(super) fn apply(terminal: &OwnedFd, wanted: &[u8]) {
    let changed = tcgetattr(terminal).and_then(|mut termios| {
        let mut wanted = Reader::new(wanted);
        while let (Ok(mode @ 1..=159), Ok(value)) = (wanted.byte(), wanted.number()) {
            set(&mut termios, mode, value);
        }
        tcsetattr(terminal, SetArg::TCSANOW, &termios)
    });
    if let Err(error) = changed {
        tracing::debug!(%error, "A terminal keeps its usual modes");
    }
}

fn set(termios: &mut Termios, mode: u8, value: u32) {
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

fn character(mode: u8) -> Option<Index> {
    Some(match mode {
        1 => Index::VINTR,
        2 => Index::VQUIT,
        3 => Index::VERASE,
        4 => Index::VKILL,
        5 => Index::VEOF,
        6 => Index::VEOL,
        7 => Index::VEOL2,
        8 => Index::VSTART,
        9 => Index::VSTOP,
        10 => Index::VSUSP,
        12 => Index::VREPRINT,
        13 => Index::VWERASE,
        14 => Index::VLNEXT,
        18 => Index::VDISCARD,
        _ => return None,
    })
}

fn input(mode: u8) -> Option<InputFlags> {
    Some(match mode {
        30 => InputFlags::IGNPAR,
        31 => InputFlags::PARMRK,
        32 => InputFlags::INPCK,
        33 => InputFlags::ISTRIP,
        34 => InputFlags::INLCR,
        35 => InputFlags::IGNCR,
        36 => InputFlags::ICRNL,
        38 => InputFlags::IXON,
        39 => InputFlags::IXANY,
        40 => InputFlags::IXOFF,
        41 => InputFlags::IMAXBEL,
        42 => InputFlags::IUTF8,
        _ => return None,
    })
}

fn local(mode: u8) -> Option<LocalFlags> {
    Some(match mode {
        50 => LocalFlags::ISIG,
        51 => LocalFlags::ICANON,
        53 => LocalFlags::ECHO,
        54 => LocalFlags::ECHOE,
        55 => LocalFlags::ECHOK,
        56 => LocalFlags::ECHONL,
        57 => LocalFlags::NOFLSH,
        58 => LocalFlags::TOSTOP,
        59 => LocalFlags::IEXTEN,
        60 => LocalFlags::ECHOCTL,
        61 => LocalFlags::ECHOKE,
        62 => LocalFlags::PENDIN,
        _ => return None,
    })
}

fn output(mode: u8) -> Option<OutputFlags> {
    Some(match mode {
        70 => OutputFlags::OPOST,
        72 => OutputFlags::ONLCR,
        73 => OutputFlags::OCRNL,
        74 => OutputFlags::ONOCR,
        75 => OutputFlags::ONLRET,
        _ => return None,
    })
}

fn control(mode: u8) -> Option<ControlFlags> {
    Some(match mode {
        90 => ControlFlags::CS7,
        91 => ControlFlags::CS8,
        92 => ControlFlags::PARENB,
        93 => ControlFlags::PARODD,
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
            // VERASE, VKILL, IXON, ECHO, ONLCR, the end, and what is behind it.
            &[
                3, 0, 0, 0, 8, 4, 0, 0, 0, 255, 38, 0, 0, 0, 0, 53, 0, 0, 0, 0, 72, 0, 0, 0, 0, 0,
                51, 0, 0, 0, 0,
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
