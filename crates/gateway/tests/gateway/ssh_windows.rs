//! The SSH server of a gitspace that keeps to each channel's window alone: `flood N` sends so many bytes, `say X` says X.

use ssh_transport::{HostKey, Packet, Transport, Writer, number};
use std::{collections::BTreeMap, sync::Arc};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

const CHUNK: usize = 16 * 1024;

struct Channel {
    theirs: u32,
    window: u32,
    left: Option<usize>,
}

pub(crate) async fn serve(mut stream: TcpStream) {
    let key = Arc::new(HostKey::generate().unwrap());
    let mut transport = Transport::server(key, "windows").unwrap();
    let mut channels = BTreeMap::new();
    loop {
        while let Some(packet) = transport.next().unwrap() {
            answer(&mut transport, &mut channels, &packet);
        }
        for channel in channels.values_mut() {
            flood(&mut transport, channel);
        }
        let out = transport.output().to_vec();
        if stream.write_all(&out).await.is_err() {
            return;
        }
        transport.sent(out.len());
        match stream.read_buf(transport.inbound()).await {
            Ok(1..) => {}
            Ok(0) | Err(_) => return,
        }
    }
}

fn answer(transport: &mut Transport, channels: &mut BTreeMap<u32, Channel>, packet: &Packet) {
    let mut fields = packet.fields();
    let mut send = |writer: Writer| transport.send(&writer.finish()).unwrap();
    match packet.number() {
        number::SERVICE_REQUEST => {
            send(Writer::message(number::SERVICE_ACCEPT).string(fields.string().unwrap()));
        }
        number::USERAUTH_REQUEST => send(Writer::message(number::USERAUTH_SUCCESS)),
        number::CHANNEL_OPEN => {
            fields.string().unwrap();
            let (theirs, window) = (fields.number().unwrap(), fields.number().unwrap());
            let confirmation = Writer::message(number::CHANNEL_OPEN_CONFIRMATION);
            send(
                confirmation
                    .number(theirs)
                    .number(theirs)
                    .number(1 << 20)
                    .number(32768),
            );
            let left = None;
            channels.insert(
                theirs,
                Channel {
                    theirs,
                    window,
                    left,
                },
            );
        }
        number::CHANNEL_WINDOW_ADJUST => {
            let id = fields.number().unwrap();
            if let Some(channel) = channels.get_mut(&id) {
                channel.window += fields.number().unwrap();
            }
        }
        number::CHANNEL_REQUEST => {
            let id = fields.number().unwrap();
            let (name, wants_reply) = (fields.text().unwrap(), fields.boolean().unwrap());
            if wants_reply {
                send(Writer::message(number::CHANNEL_SUCCESS).number(id));
            }
            if name == "exec" {
                let command = fields.text().unwrap();
                if let Some(words) = command.strip_prefix("say ") {
                    send(
                        Writer::message(number::CHANNEL_DATA)
                            .number(id)
                            .string(words),
                    );
                    channels.get_mut(&id).unwrap().left = Some(0);
                } else {
                    let bytes = command.strip_prefix("flood ").unwrap().parse().unwrap();
                    channels.get_mut(&id).unwrap().left = Some(bytes);
                }
            }
        }
        number::CHANNEL_CLOSE => {
            channels.remove(&fields.number().unwrap());
        }
        _ => {}
    }
}

fn flood(transport: &mut Transport, channel: &mut Channel) {
    let Some(left) = &mut channel.left else {
        return;
    };
    let id = channel.theirs;
    while *left > 0 && channel.window > 0 && transport.can_send() {
        let chunk = CHUNK.min(*left).min(channel.window as usize);
        let data = Writer::message(number::CHANNEL_DATA)
            .number(id)
            .string(vec![0; chunk]);
        transport.send(&data.finish()).unwrap();
        channel.window -= u32::try_from(chunk).unwrap();
        *left -= chunk;
    }
    if *left == 0 {
        channel.left = None;
        let status = Writer::message(number::CHANNEL_REQUEST)
            .number(id)
            .string("exit-status")
            .boolean(false)
            .number(0);
        transport.send(&status.finish()).unwrap();
        for number in [number::CHANNEL_EOF, number::CHANNEL_CLOSE] {
            let message = Writer::message(number).number(id);
            transport.send(&message.finish()).unwrap();
        }
    }
}
