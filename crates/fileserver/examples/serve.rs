//! `serve TREE SOCKET`: serves a tree to the first front end that connects, for `bench/files`.

use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::process::ExitCode;

use accord_fileserver::{Options, serve};

#[expect(unsafe_code, reason = "the server closes the descriptors of its process")]
fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(root), Some(socket)) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: serve TREE SOCKET");
        return ExitCode::from(2);
    };
    let connection = match UnixListener::bind(socket).and_then(|listener| listener.accept()) {
        Ok((connection, _)) => connection.into(),
        Err(error) => {
            eprintln!("serve: {error}");
            return ExitCode::FAILURE;
        }
    };
    let stderr = std::io::stderr();
    let options = Options { root: root.as_ref(), keep: &[stderr.as_fd()] };
    // SAFETY: no descriptor is used from here on but those that are passed.
    match unsafe { serve(connection, &options) } {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("serve: {failure}");
            ExitCode::FAILURE
        }
    }
}
