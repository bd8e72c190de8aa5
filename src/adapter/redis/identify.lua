-- Names the server. KEYS: server.
return answer('server')
