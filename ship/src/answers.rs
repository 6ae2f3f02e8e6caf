//! Bounds what a server answers: the library takes the whole text of an error, and of every answer
//! that is not the content of an object, into memory.

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
    ReqwestConnector,
};

/// Most bytes of an error; what comes after them is not read.
const ERROR: usize = 16 << 10;
/// Most bytes of another answer without an object.
const ANSWER: usize = 1 << 20;

/// Connects as the library does, to servers whose answers are bounded.
#[derive(Debug)]
pub(crate) struct BoundedAnswers;

impl HttpConnector for BoundedAnswers {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        ReqwestConnector::default().connect(options).map(|client| HttpClient::new(Bounded(client)))
    }
}

#[derive(Debug)]
struct Bounded(HttpClient);

#[async_trait]
impl HttpService for Bounded {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let reads = request.method().as_str() == "GET";
        let answer = self.0.execute(request).await?;
        let is_error = !answer.status().is_success();
        if reads && !is_error {
            return Ok(answer);
        }
        let (head, body) = answer.into_parts();
        let (mut stream, mut text) = (body.bytes_stream(), Vec::new());
        while let Some(bytes) = stream.next().await {
            text.extend_from_slice(&bytes?);
            if is_error && text.len() >= ERROR {
                text.truncate(ERROR);
                break;
            }
            if text.len() > ANSWER {
                let why = std::io::Error::other("the server's answer has over 1 MiB");
                return Err(HttpError::new(HttpErrorKind::Decode, why));
            }
        }
        Ok(HttpResponse::from_parts(head, Bytes::from(text).into()))
    }
}
