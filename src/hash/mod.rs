//! hash stub
use sha1::{Digest, Sha1};
use std::sync::mpsc;
pub struct Message<'a> {
    pub segments: smallvec::SmallVec<[&'a [u8]; 2]>,
}
pub trait Job: Send + 'static {
    fn len(&self) -> usize;
    fn message(&self) -> Message<'_>;
}
pub struct Verifier<J> {
    tx: std::sync::Mutex<mpsc::Sender<J>>,
}
impl<J: Job> Verifier<J> {
    pub fn start(_t: usize, done: impl Fn(J, [u8; 20]) + Send + Sync + 'static) -> std::io::Result<Self> {
        let (tx, rx) = mpsc::channel::<J>();
        std::thread::spawn(move || {
            for job in rx {
                let d = {
                    let m = job.message();
                    let mut h = Sha1::new();
                    for s in &m.segments {
                        h.update(s);
                    }
                    h.finalize().into()
                };
                done(job, d);
            }
        });
        Ok(Self { tx: std::sync::Mutex::new(tx) })
    }
    pub fn submit(&self, job: J) {
        let _ = self.tx.lock().unwrap().send(job);
    }
}
