# Two small images from one build: the bridge (the default), and the stand-ins for trying it out.
#
#   docker build -t packhorse .
#   docker build -t packhorse-standins --target standins .
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --release --locked --bin packhorse --example standins

FROM debian:bookworm-slim AS standins
COPY --from=build /src/target/release/examples/standins /usr/local/bin/standins
USER 10002:10002
ENTRYPOINT ["standins"]

FROM debian:bookworm-slim AS bridge
# The authorities that the world trusts; a system's own is named by its adapter's setting `ca`.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /src/target/release/packhorse /usr/local/bin/packhorse
COPY adapters /etc/packhorse/adapters
COPY mappings /etc/packhorse/mappings
# The store is the only thing that is written.
RUN install -d -o 10001 -g 10001 /var/lib/packhorse
VOLUME /var/lib/packhorse
WORKDIR /etc/packhorse
USER 10001:10001
EXPOSE 8080 9464
# The slim image has no curl; bash can open a socket itself.
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s \
  CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/9464 && printf 'GET /ready HTTP/1.0\\r\\n\\r\\n' >&3 && head -1 <&3 | grep -q ' 200 '"]
ENTRYPOINT ["packhorse"]
CMD ["run"]
