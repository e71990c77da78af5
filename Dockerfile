FROM python:3.11-slim

WORKDIR /src
COPY constraints.txt pyproject.toml LICENSE ./
COPY clients/python clients/python
COPY persistence persistence
COPY service service
# Any other user may be named, too: nothing asks for an entry in /etc/passwd, and the folder of the data takes everybody's.
RUN pip install --no-cache-dir -c constraints.txt '.[embedded]' \
    && groupadd --gid 10001 flowkeep \
    && useradd --uid 10001 --gid 10001 --create-home flowkeep \
    && install -d -m 1777 /var/lib/flowkeep

# The embedded Postgres keeps its data in the volume; production sets FLOWKEEP_DATABASE_URL. To be reached from outside
# of the container, set FLOWKEEP_LISTEN=0.0.0.0:50051, the keys of your tokens and TLS (service/PRODUCTION.md). Health can
# be asked from outside as it is, without TLS, and tells nothing else.
ENV FLOWKEEP_DATA_DIR=/var/lib/flowkeep FLOWKEEP_HEALTH_LISTEN=0.0.0.0:50052
WORKDIR /var/lib/flowkeep
VOLUME /var/lib/flowkeep
# By its number, which Kubernetes can tell from root.
USER 10001:10001
EXPOSE 50051 50052
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s CMD flowkeep health || exit 1
CMD ["flowkeep", "serve"]
