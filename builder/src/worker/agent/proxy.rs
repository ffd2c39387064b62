//! What a command may ask of an ssh agent: which keys it has, and to sign with one.
//!
//! An agent also adds and removes keys, locks itself and takes extensions, for whoever can open its
//! socket. The caller gave the keys to be used, so these requests answer failure and never reach the
//! agent. Requests and answers pass one by one as frames, so that nothing can hide in another's rest.
//!
//! A frame: its length in 4 bytes, the big end first; a byte that says what it is; the rest.

use std::io;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

/// The longest frame, as in OpenSSH.
const LONGEST: u32 = 256 << 10;

const FAILURE: u8 = 5;
const LIST: u8 = 11;
const KEYS: u8 = 12;
const SIGN: u8 = 13;
const SIGNATURE: u8 = 14;

/// Answers what the command at the other end of `near` asks until it hangs up. `connect` leads to
/// the agent; it is called for the first request that may pass.
pub(super) async fn talk(
    mut near: UnixStream,
    connect: impl AsyncFn() -> io::Result<UnixStream>,
) -> io::Result<()> {
    let mut agent = None;
    while let Some(request) = read_frame(&mut near).await? {
        let answer = match permitted(&request) {
            None => vec![FAILURE],
            Some((request, expected)) => {
                let far = match &mut agent {
                    Some(far) => far,
                    none => none.insert(connect().await?),
                };
                ask(far, request, expected).await?
            }
        };
        write_frame(&mut near, &answer).await?;
    }
    Ok(())
}

/// The request as it may pass, and what its answer is if it is not a failure.
fn permitted(request: &[u8]) -> Option<(&[u8], u8)> {
    match request {
        [LIST, ..] => Some((&[LIST], KEYS)),
        [SIGN, ..] => Some((request, SIGNATURE)),
        _ => None,
    }
}

async fn ask(agent: &mut UnixStream, request: &[u8], expected: u8) -> io::Result<Vec<u8>> {
    write_frame(agent, request).await?;
    let answer = read_frame(agent).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
    Ok(if answer[0] == expected { answer } else { vec![FAILURE] })
}

/// Reads a frame without its length; `None` at the end. It is never empty. Memory grows with what
/// comes, not with what the length claims.
async fn read_frame(stream: &mut UnixStream) -> io::Result<Option<Vec<u8>>> {
    let length = match stream.read_u32().await {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        length => length?,
    };
    if length == 0 || length > LONGEST {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut frame = Vec::new();
    let read = stream.take(length.into()).read_to_end(&mut frame).await?;
    if read < length as usize {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Some(frame))
}

async fn write_frame(stream: &mut UnixStream, frame: &[u8]) -> io::Result<()> {
    let length = u32::try_from(frame.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    stream.write_all(&[&length.to_be_bytes(), frame].concat()).await
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A conversation with an agent that has one answer for all and tells what it was asked.
    async fn converse(
        sent: &[u8],
        answer: &'static [u8],
    ) -> (Vec<u8>, io::Result<()>, Option<Vec<u8>>) {
        let (mut command, near) = UnixStream::pair().unwrap();
        let (far, agent) = UnixStream::pair().unwrap();
        let far = std::sync::Mutex::new(Some(far));
        let connect = async || Ok(far.lock().unwrap().take().expect("it connects once"));
        command.write_all(sent).await.unwrap();
        command.shutdown().await.unwrap();
        let serve = async {
            let mut agent = agent;
            let asked = read_frame(&mut agent).await.unwrap();
            if asked.is_some() {
                agent.write_all(answer).await.unwrap();
            }
            asked
        };
        let proxy = async {
            let ended = talk(near, connect).await;
            drop(far.lock().unwrap().take());
            ended
        };
        let (ended, asked) = tokio::join!(proxy, serve);
        let mut said = Vec::new();
        // It is reset if the proxy ends without reading all.
        let _reset = command.read_to_end(&mut said).await;
        (said, ended, asked)
    }

    #[tokio::test]
    async fn listing_and_signing_pass() {
        let (said, ended, asked) = converse(b"\0\0\0\x01\x0b", b"\0\0\0\x05\x0c\0\0\0\0").await;
        assert_eq!((&said[..], asked), (&b"\0\0\0\x05\x0c\0\0\0\0"[..], Some(b"\x0b".to_vec())));
        ended.unwrap();
        let (said, _, asked) = converse(b"\0\0\0\x04\x0dabc", b"\0\0\0\x03\x0exy").await;
        assert_eq!((&said[..], asked), (&b"\0\0\0\x03\x0exy"[..], Some(b"\x0dabc".to_vec())));
    }

    #[tokio::test]
    async fn everything_else_answers_failure_and_never_reaches_the_agent() {
        for request in (0..=255).filter(|&request| request != LIST && request != SIGN) {
            let (said, _, asked) = converse(&[0, 0, 0, 2, request, 1], b"").await;
            assert_eq!((&said[..], asked), (&[0, 0, 0, 1, FAILURE][..], None), "{request}");
        }
    }

    #[tokio::test]
    async fn nothing_passes_behind_a_request() {
        // A lock inside the frame of a list, and one behind it.
        let (_, _, asked) = converse(b"\0\0\0\x07\x0b\0\0\0\x02\x16p", b"\0\0\0\x01\x05").await;
        assert_eq!(asked, Some(vec![LIST]));
        let sent = b"\0\0\0\x01\x0b\0\0\0\x02\x16p";
        let (said, _, _) = converse(sent, b"\0\0\0\x05\x0c\0\0\0\0").await;
        assert_eq!(said, b"\0\0\0\x05\x0c\0\0\0\0\0\0\0\x01\x05");
    }

    #[tokio::test]
    async fn an_answer_of_another_kind_is_a_failure() {
        let (said, _, _) = converse(b"\0\0\0\x01\x0b", b"\0\0\0\x02\x0ex").await;
        assert_eq!(said, [0, 0, 0, 1, FAILURE]);
    }

    #[tokio::test]
    async fn a_frame_that_is_too_long_empty_or_cut_off_ends_the_conversation() {
        for sent in
            [&b"\xff\xff\xff\xff\x0b"[..], b"\0\x04\0\x01\x0b", b"\0\0\0\0", b"\0\0\0\x09\x0d"]
        {
            let (said, ended, asked) = converse(sent, b"").await;
            assert!(ended.is_err() && said.is_empty() && asked.is_none(), "{sent:?}");
        }
        let (said, ended, _) = converse(b"\0\0\0\x01\x0b", b"\xff\xff\xff\xff\x0c").await;
        assert!(ended.is_err() && said.is_empty(), "the agent's too");
    }
}
