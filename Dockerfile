# Two stages: build with Rust and a C compiler, run with nothing but the binary.
FROM rust:1.95-slim-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --locked --release --bin tollgate && mkdir -p /out/data && cp target/release/tollgate /out/

FROM debian:bookworm-slim
COPY --from=build /out/tollgate /usr/local/bin/tollgate
COPY --from=build --chown=65532:65532 /out/data /var/lib/tollgate
USER 65532:65532
VOLUME /var/lib/tollgate
EXPOSE 8080 9090
ENTRYPOINT ["/usr/local/bin/tollgate"]
CMD ["serve", "--config", "/etc/tollgate/tollgate.yaml"]
