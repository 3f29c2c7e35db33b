//! Faults on purpose, for tests of the whole. Only compiled with the feature `fault-injection`.

use actix::prelude::*;

use crate::protocol::Fault;

/// Does to the actor what `fault` says.
#[allow(clippy::panic)]
pub fn commit<A: Actor<Context = Context<A>>>(fault: Fault, ctx: &mut Context<A>) {
    match fault {
        Fault::Panic => panic!("injected fault"),
        Fault::Stop => ctx.stop(),
        Fault::Hang => ctx.wait(actix::fut::wrap_future(std::future::pending())),
        Fault::Block => loop {
            std::thread::sleep(std::time::Duration::from_secs(3_600));
        },
    }
}
