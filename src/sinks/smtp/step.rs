//! The stream to a mail server, watched for answers that nobody asked for. In: what lettre writes and reads. Out: the same, or an error in
//! place of the next command where more has been said than one answer: whoever went on would take each answer for that of the command
//! before, and a mail that was refused would count as sent. What comes so late that a command has gone out meanwhile cannot be told from
//! its answer; the command behind that finds the rest.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
};

use lettre::transport::smtp::client::AsyncTokioStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes of a line that are looked at: whether it is an answer's last stands behind the code.
const MARK_AT: usize = 3;

/// See the module.
#[derive(Debug)]
pub(super) struct InStep {
    stream: Box<dyn AsyncTokioStream>,
    /// How far the line that is being read has come, and what stands behind its code.
    at: usize,
    mark: u8,
    said: Said,
}

/// What the server has said since the last command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    /// Nothing yet, or no whole answer.
    Less,
    /// One answer.
    All,
    /// Something behind it.
    More,
}

impl InStep {
    pub(super) fn of(stream: Box<dyn AsyncTokioStream>) -> Box<Self> {
        Box::new(Self { stream, at: 0, mark: 0, said: Said::Less })
    }

    fn hear(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if self.said != Said::Less {
                self.said = Said::More;
                return;
            }
            if self.at == MARK_AT {
                self.mark = *byte;
            }
            self.at += 1;
            if *byte == b'\n' {
                if self.mark != b'-' {
                    self.said = Said::All;
                }
                (self.at, self.mark) = (0, 0);
            }
        }
    }

    /// Whether a command may go out now: all of one answer has come, and nothing behind it.
    fn look(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if self.said == Said::Less {
            return Ok(());
        }
        let mut more = [0; 1];
        let mut buffer = ReadBuf::new(&mut more);
        match Pin::new(&mut *self.stream).poll_read(context, &mut buffer) {
            Poll::Pending if self.said == Said::All => {
                self.said = Said::Less;
                Ok(())
            }
            Poll::Ready(Err(error)) => Err(error),
            Poll::Ready(Ok(())) if buffer.filled().is_empty() => {
                Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the mail server has hung up"))
            }
            _ => {
                self.said = Said::More;
                Err(io::Error::other("the mail server said more than it was asked"))
            }
        }
    }
}

impl AsyncTokioStream for InStep {
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.stream.peer_addr()
    }
}

impl AsyncRead for InStep {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let done = Pin::new(&mut *self.stream).poll_read(context, buffer);
        self.hear(&buffer.filled()[before..]);
        done
    }
}

impl AsyncWrite for InStep {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.look(context)?;
        Pin::new(&mut *self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(pieces: &[&str]) -> Said {
        #[derive(Debug)]
        struct Nobody;
        impl AsyncTokioStream for Nobody {
            fn peer_addr(&self) -> io::Result<SocketAddr> {
                Err(io::ErrorKind::NotConnected.into())
            }
        }
        impl AsyncRead for Nobody {
            fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
                Poll::Pending
            }
        }
        impl AsyncWrite for Nobody {
            fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
                Poll::Ready(Ok(bytes.len()))
            }
            fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
                Poll::Ready(Ok(()))
            }
            fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
                Poll::Ready(Ok(()))
            }
        }
        let mut stream = InStep::of(Box::new(Nobody));
        pieces.iter().for_each(|piece| stream.hear(piece.as_bytes()));
        let before = stream.said;
        let may = stream.look(&mut Context::from_waker(std::task::Waker::noop()));
        assert_eq!(may.is_err(), before == Said::More, "{pieces:?}");
        before
    }

    #[tokio::test]
    async fn what_comes_unasked_before_the_next_command_stops_it() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let near = std::net::TcpStream::connect(listener.local_addr().expect("bound")).expect("connects");
        let (mut far, _) = listener.accept().expect("a connection");
        near.set_nonblocking(true).expect("a socket");
        let beside = tokio::net::TcpStream::from_std(near.try_clone().expect("a second handle")).expect("a socket");
        let mut stream = InStep::of(Box::new(tokio::net::TcpStream::from_std(near).expect("a socket")));
        let mut answer = [0; 64];
        for n in 0..3 {
            std::io::Write::write_all(&mut far, b"250 fine\r\n").expect("writes");
            let count = stream.read(&mut answer).await.expect("reads");
            assert_eq!(&answer[..count], b"250 fine\r\n", "{n}");
            if n < 2 {
                stream.write_all(b"NOOP\r\n").await.expect("in step");
            }
        }
        std::io::Write::write_all(&mut far, b"250 nobody asked\r\n").expect("writes");
        beside.peek(&mut answer).await.expect("it has come");
        tokio::task::yield_now().await;
        let stopped = stream.write_all(b"NOOP\r\n").await.expect_err("out of step");
        assert!(stopped.to_string().contains("more than it was asked"), "{stopped}");
        assert!(stream.write_all(b"NOOP\r\n").await.is_err(), "and stays so");
    }

    #[test]
    fn one_answer_is_told_from_more_however_it_is_cut() {
        for all in ["250 fine\r\n", "250-one\r\n250-two\r\n250 three\r\n", "250\r\n", "354 go\n"] {
            assert_eq!(heard(&[all]), Said::All, "{all:?}");
            for at in 1..all.len() {
                assert_eq!(heard(&[&all[..at]]), Said::Less, "{:?}", &all[..at]);
                assert_eq!(heard(&[&all[..at], &all[at..]]), Said::All, "{all:?} cut at {at}");
                assert_eq!(heard(&[&all[..at], &all[at..], "2"]), Said::More, "{all:?} and more");
            }
        }
    }
}
